"""The reference's errors, kept for the next run on the same pairs and draws."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.engine.config import TrainConfig
from train.engine.files import make_room
from train.pairs.pairs import PreferencePair, hash_pairs, reverse_pairs


class ReferenceErrors:
    """The reference's errors by position, kept in a file so that the next run on the same pairs and draws can skip
    the reference: train.dpo after train.npo, or another loss, beta, rank or learning rate.

    The file holds two float32 a position, 0 where unknown (no error is exactly 0). Which of a pair's pictures comes
    first there does not depend on the order of preference, so that reversed pairs find the same numbers.
    """

    def __init__(self, file: Path, pairs: Sequence[PreferencePair], positions: int) -> None:
        make_room(file, 8 * positions)
        self._errors = np.memmap(file, np.float32, "r+", shape=(positions, 2))
        self._exchanged = torch.tensor([_is_exchanged(pair) for pair in pairs])  # (N,) bool

    def read(self, first: int, chosen: Tensor) -> Tensor | None:
        """(2B,), the preferred pictures' first, of positions first .. first + B-1; None unless all are known."""
        found = torch.from_numpy(np.array(self._errors[first : first + len(chosen)]))  # (B, 2)
        if not found.all():
            return None
        return self._ordered(found, chosen).T.flatten().to(chosen.device)

    def write(self, first: int, chosen: Tensor, errors: Tensor) -> None:
        """Keeps errors (2B,) as `read` gives them."""
        both = torch.stack(errors.detach().float().cpu().chunk(2), 1)  # (B, 2)
        self._errors[first : first + len(chosen)] = self._ordered(both, chosen).numpy()

    def _ordered(self, both: Tensor, chosen: Tensor) -> Tensor:
        """(B, 2) from the pair's order to the file's, or back."""
        exchanged = self._exchanged[chosen.cpu()][:, None]
        return torch.where(exchanged, both.flip(1), both)


def reference_key(config: TrainConfig, facts: dict[str, Any], pairs: Sequence[PreferencePair], processes: int) -> str:
    """What two runs must share to have the same reference errors at every position."""
    names = ("seed", "batch_size", "gradient_accumulation_steps", "caption_dropout", "timestep_range",
             "timestep_sampling", "mixed_precision")  # fmt: skip
    same_order = [reverse_pairs([pair])[0] if _is_exchanged(pair) else pair for pair in pairs]
    unweighted = [replace(pair, weight=1.0) for pair in same_order]
    parts = [getattr(config, name) for name in names]
    return hashlib.sha256(repr([parts, processes, facts, hash_pairs(unweighted)]).encode()).hexdigest()


def _is_exchanged(pair: PreferencePair) -> bool:
    return pair.preferred.tobytes() > pair.rejected.tobytes()
