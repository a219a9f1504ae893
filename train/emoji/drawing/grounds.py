"""What is behind the things of a view: one colour, or a simple painting (sky, night sky, grass, beach, snow)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.emoji.drawing.chance import column, spread
from train.emoji.drawing.concepts import BACKDROPS, BACKGROUNDS

Colour = tuple[int, int, int]
STAR_CELLS = 11  # a side; each may hold one star or flake


def paint(background: np.ndarray, draws: np.ndarray, side_px: int, device: torch.device) -> Tensor:
    """(N, 3, side, side) in [0, 1]. background: (N,) of BACKDROPS. draws: (N, 2) from [0, 1)."""
    table = torch.zeros(len(BACKDROPS), 3)
    table[: len(BACKGROUNDS)] = torch.tensor(list(BACKGROUNDS.values())) / 255
    canvas = table.to(device)[torch.from_numpy(background).to(device)]
    canvas = canvas[:, :, None, None].expand(-1, -1, side_px, side_px).contiguous()
    for index, name in enumerate(BACKDROPS):
        rows = np.flatnonzero(background == index)
        if name in PAINTINGS and len(rows):
            canvas[torch.from_numpy(rows).to(device)] = PAINTINGS[name](draws[rows], side_px, device)
    return canvas.clamp_(0, 1)


def _across(side_px: int, device: torch.device) -> Tensor:
    """The middles of the pixels, 0 to 1: (S,)."""
    return (torch.arange(side_px, device=device) + 0.5) / side_px


def _gradient(top: Colour, bottom: Colour, side_px: int, device: torch.device) -> Tensor:
    """(1, 3, S, 1) from the top of the canvas to its bottom."""
    first, last = (torch.tensor(colour, device=device).view(1, 3, 1, 1) / 255 for colour in (top, bottom))
    return first + (last - first) * _across(side_px, device).view(1, 1, -1, 1)


def _below(height: Tensor, waves: float, draws: np.ndarray, side_px: int, rise: float = 0.03) -> Tensor:
    """(N, 1, S, S): 1 below a wavy line at `height` (N, 1, 1, 1) from the top, 0 above, a pixel of both between."""
    across = _across(side_px, height.device)
    phase = 2 * torch.pi * column(draws[:, 1], height.device)
    line = height + rise * torch.sin(2 * torch.pi * waves * across.view(1, 1, 1, -1) + phase)
    return ((across.view(1, 1, -1, 1) - line) * side_px + 0.5).clamp(0, 1)


def _sparkles(draws: np.ndarray, share: float, radius_px: float, side_px: int, device: torch.device) -> Tensor:
    """(N, 1, S, S) in [0, 1]: small soft dots, at most one in each cell of a grid."""
    cells = STAR_CELLS
    place = spread(draws[:, 0], (4, cells, cells), device)  # (N, 4, C, C): x and y in the cell, size, whether
    near = functional.interpolate(place, size=(side_px, side_px), mode="nearest")
    inside = (_across(side_px, device) * cells) % 1
    dx = (inside.view(1, 1, 1, -1) - 0.25 - 0.5 * near[:, :1]) * side_px / cells
    dy = (inside.view(1, 1, -1, 1) - 0.25 - 0.5 * near[:, 1:2]) * side_px / cells
    radius = radius_px * side_px / 256 * (0.6 + 0.8 * near[:, 2:3])
    return torch.exp(-0.5 * (dx.square() + dy.square()) / radius.square()) * (near[:, 3:] < share)


def _sky(draws: np.ndarray, side_px: int, device: torch.device) -> Tensor:
    cells = spread(draws[:, 0], (1, 7, 4), device)
    heap = functional.interpolate(cells, size=(side_px, side_px), mode="bicubic", align_corners=False)
    cloud = ((heap - 0.62) / 0.18).clamp(0, 1)
    cloud = 0.75 * cloud * cloud * (3 - 2 * cloud)
    return _gradient((92, 172, 240), (196, 228, 252), side_px, device) * (1 - cloud) + cloud


def _night(draws: np.ndarray, side_px: int, device: torch.device) -> Tensor:
    dark = _gradient((30, 34, 92), (104, 78, 150), side_px, device)
    stars = _sparkles(draws, 0.4, 1.5, side_px, device)
    return dark + (1 - dark) * stars


def _over(upper: Tensor, lower: Tensor, below: Tensor) -> Tensor:
    return upper + (lower - upper) * below


def _grass(draws: np.ndarray, side_px: int, device: torch.device) -> Tensor:
    height = column(0.56 + 0.16 * draws[:, 0], device)
    meadow = _gradient((150, 214, 92), (74, 160, 66), side_px, device)
    return _over(_gradient((168, 216, 250), (226, 242, 255), side_px, device), meadow, _below(height, 0.8, draws, side_px))  # fmt: skip # noqa: E501


def _beach(draws: np.ndarray, side_px: int, device: torch.device) -> Tensor:
    height = column(0.34 + 0.1 * draws[:, 0], device)
    sea = _gradient((24, 130, 200), (96, 206, 224), side_px, device)
    sand = _gradient((250, 226, 170), (236, 200, 134), side_px, device)
    upper = _over(
        _gradient((150, 212, 250), (224, 244, 255), side_px, device), sea, _below(height, 0, draws, side_px, 0)
    )
    return _over(upper, sand, _below(height + 0.24, 1.3, draws, side_px, 0.02))


def _snow(draws: np.ndarray, side_px: int, device: torch.device) -> Tensor:
    height = column(0.58 + 0.14 * draws[:, 0], device)
    field = _gradient((255, 255, 255), (222, 234, 248), side_px, device)
    upper = _over(
        _gradient((134, 170, 214), (196, 216, 238), side_px, device), field, _below(height, 1.1, draws, side_px)
    )
    flakes = _sparkles(draws, 0.5, 2.2, side_px, device)
    return upper + (1 - upper) * flakes


PAINTINGS: dict[str, Callable[[np.ndarray, int, torch.device], Tensor]] = {
    "sky": _sky,
    "night sky": _night,
    "grass": _grass,
    "beach": _beach,
    "snow": _snow,
}
