"""Many random numbers from one, alike on every device: what a renderer needs to stay a pure function."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

_MIX, _LOW = 0x45D9F3B, 0xFFFFFFFF  # a 32-bit integer hash (two rounds of xor-shift and multiply)


def spread(draw: np.ndarray, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(N, *shape) float32, evenly spread over [0, 1), from one draw (N,) each."""
    seed = torch.from_numpy((draw * 2**31).astype(np.int64)).to(device)[:, None]
    mixed = (seed * 7919 + torch.arange(math.prod(shape), device=device) * 104729 + 1013904223) & _LOW
    for _ in range(2):
        mixed = ((mixed ^ (mixed >> 16)) * _MIX) & _LOW
    mixed = mixed ^ (mixed >> 16)
    return (mixed.double() / 2**32).float().view(-1, *shape)


def column(values: np.ndarray, device: torch.device) -> Tensor:
    """(N,) -> (N, 1, 1, 1) float32 on the device."""
    return torch.from_numpy(values).float().to(device).view(-1, 1, 1, 1)
