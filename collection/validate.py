"""Small checks of what callers hand in; each raises InputError with one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from collection.errors import InputError

LONGEST_RESPONSE_S: Final = 7 * 24 * 3600.0


def check_one_of(what: str, given: str, allowed: Sequence[str]) -> None:
    """`given` is one of `allowed`."""
    if given not in allowed:
        raise InputError(f"Unknown {what} {given!r}; choose from {', '.join(allowed)}.")


def check_response_time(response_time_s: float | None) -> None:
    """A browser's clock may say anything, so only possible times are kept."""
    if response_time_s is None:
        return
    possible = isinstance(response_time_s, int | float) and math.isfinite(response_time_s)
    if not (possible and 0 <= response_time_s <= LONGEST_RESPONSE_S):
        raise InputError(
            f"The response time {response_time_s!r} s is not possible; "
            f"give 0 to {LONGEST_RESPONSE_S:.0f} seconds or leave it out."
        )


def check_latents(latents: np.ndarray | None) -> None:
    """Latents are finite float16, (C, H, W) or (F, C, H, W), or there are none."""
    if latents is None:
        return
    if latents.dtype != np.float16 or latents.ndim not in (3, 4) or not np.isfinite(latents).all():
        raise InputError(
            f"Latents of type {latents.dtype} and shape {latents.shape} cannot be kept; "
            "give finite float16 of shape (C, H, W) or (F, C, H, W)."
        )
