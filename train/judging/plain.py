"""Measures that nobody trained: sharpness, noise, saturation, clipped pixels, how far two pictures are apart."""

from __future__ import annotations

import torch
from torch import Tensor

NORMAL_MAD = 0.6745  # the median of a standard normal's absolute values
TOLD_APART = 4.0  # standard deviations of the noise above which a gradient is the picture's own


def noise_level(pixels: Tensor) -> Tensor:
    """(B,) standard deviation of the noise in (B, 3, H, W), by the median of the diagonal Haar details (Donoho and
    Johnstone 1994): edges are few and move a median little, and plain grounds give exactly 0."""
    grey = pixels.mean(1)
    details = (grey[:, ::2, ::2] - grey[:, ::2, 1::2] - grey[:, 1::2, ::2] + grey[:, 1::2, 1::2]) / 2
    return details.abs().flatten(1).median(1).values / NORMAL_MAD


def _gradient(pixels: Tensor) -> Tensor:
    """(B, H - 1, W - 1) its size in 255ths a pixel; what noise alone would give counts as 0."""
    grey = pixels.mean(1)
    along_x = grey[:, :-1, 1:] - grey[:, :-1, :-1]
    along_y = grey[:, 1:, :-1] - grey[:, :-1, :-1]
    size = torch.hypot(along_x, along_y)
    floor = TOLD_APART * 2**0.5 * noise_level(pixels)  # a difference of two pixels has twice their variance
    return 255 * torch.where(size > floor[:, None, None], size, 0.0)


def sharpness(pixels: Tensor) -> Tensor:
    """(B,) mean gradient of (B, 3, H, W) in [0, 1], in 255ths a pixel, noise left out: how much there is of edges and
    fine structure. Compare pictures of one size only."""
    return _gradient(pixels).mean((1, 2))


def steepness(pixels: Tensor) -> Tensor:
    """(B,) the gradient's mean weighted by itself, in 255ths a pixel, noise left out: how crisp the edges are. The mean
    alone hardly sees a blurred outline, for a wide slope adds up to what a steep one does."""
    gradient = _gradient(pixels)
    return gradient.square().sum((1, 2)) / gradient.sum((1, 2)).clamp(min=1e-6)


def saturation(pixels: Tensor) -> Tensor:
    """(B,) mean saturation (of hue, saturation, value) of (B, 3, H, W) in [0, 1]."""
    high, low = pixels.amax(1), pixels.amin(1)
    return ((high - low) / high.clamp(min=1e-6)).mean((1, 2))


def clipped(pixels: Tensor) -> Tensor:
    """(B,) share of pixels with a channel at 0 or 255 that are neither black nor white, of (B, 3, H, W) in [0, 1]."""
    at_end = (pixels < 0.5 / 255) | (pixels > 254.5 / 255)
    colourless = pixels.amax(1) - pixels.amin(1) < 0.5 / 255
    return (at_end.any(1) & ~colourless).float().mean((1, 2))


def rms_difference(a: Tensor, b: Tensor) -> Tensor:
    """(B,) root mean square of a - b, both (B, 3, H, W) in [0, 1], of 255."""
    return 255 * (a - b).square().mean((1, 2, 3)).sqrt()


MEASURES = {
    "sharpness": sharpness,
    "steepness": steepness,
    "noise": noise_level,
    "saturation": saturation,
    "clipped": clipped,
}
"""Name -> (B, 3, H, W) in [0, 1] to (B,)."""
