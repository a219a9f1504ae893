"""ZeroGPU Spaces lend a GPU for the time of one call, which has to say beforehand how long it will take."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from npo_core.catalog.families import ModelFamily
from npo_core.grid import grid_requests
from npo_core.requests import GenerationRequest, resolve_request

EVALUATION_TFLOP = {512: 0.8, 1024: 6.8}  # of the UNet for one picture at the families' own sizes
TFLOP_PER_S = {512: 70.0, 1024: 130.0}  # on an H200 without CUDA graphs; 72 and 238 were measured; a bit of room
START_S = 8.0  # getting the device and moving the weights there

Function = TypeVar("Function", bound=Callable[..., Any])


def lend_gpu(function: Function, seconds: Callable[..., int]) -> Function:
    """`function` with a GPU around every call where the package `spaces` is installed and the Space is a ZeroGPU one.

    seconds: how long a call takes, from the arguments of the call. Anywhere else `function` itself.
    """
    try:
        import spaces
    except ImportError:
        return function
    return spaces.GPU(function, duration=seconds)


def is_lent(function: Callable[..., Any]) -> bool:
    """Whether `lend_gpu` put something around it; such a call runs in a process of its own."""
    return hasattr(function, "zerogpu")


def comparison_seconds(request: GenerationRequest, family: ModelFamily, count: int = 1) -> int:
    """How long `count` comparisons like `request` in one batch take on the lent GPU, rounded up."""
    resolved = resolve_request(request, family)
    share = resolved.width_px * resolved.height_px / (family.width_px * family.height_px)
    size_px = 1024 if family.width_px >= 1024 else 512
    evaluation_s = EVALUATION_TFLOP[size_px] / TFLOP_PER_S[size_px] * share * resolved.frames
    evaluations = 2 * count * len(resolved.variants) * resolved.steps
    return math.ceil(START_S + evaluations * evaluation_s)


def grid_seconds(
    request: GenerationRequest, alphas: Sequence[float], betas: Sequence[float], family: ModelFamily
) -> int:
    """How long a grid takes on the lent GPU, rounded up."""
    requests = grid_requests(request, alphas, betas)
    return comparison_seconds(requests[0], family, len(requests))
