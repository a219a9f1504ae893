"""Draw views of the emoji family's art: many at once, on the CPU or a GPU, still pictures and frames of clips alike.

images = render(load_art(Path("data/emoji/art.npz")), draw_views(np.arange(8), np.random.default_rng(0)))
"""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.emoji.drawing.chance import column
from train.emoji.drawing.concepts import COLOURS, SUPPORTS
from train.emoji.drawing.flaws import FLAW_NAMES, IMAGE_FLAWS, missing_part, wrong_hue
from train.emoji.drawing.grounds import paint
from train.emoji.drawing.views import CONCEPT_NAMES, ON, SLOTS, Placement, Views

SIZE_PX = 256
OVERSAMPLING = 2  # drawn this much larger, then averaged: smooth edges at every scale and angle
_SINK = np.array([SUPPORTS.get(name, 0.0) for name in CONCEPT_NAMES])


def render(art: Tensor, views: Views) -> Tensor:
    """(N, 3, 256, 256) float32 in [0, 1] on the device of `art`, which is (pictures, 4, H, W) uint8 RGBA.

    A pure function of its arguments: what chance decides is in `views.draws`.
    """
    views = replace(views, placement=_settled(art, views))
    image = paint(views.background, views.draws[:, 4:], SIZE_PX, art.device)
    for slot in reversed(range(SLOTS)):
        rows = np.flatnonzero(views.picture[:, slot] >= 0)
        if len(rows):
            drawn, places = _things(art, views[rows], slot), torch.from_numpy(rows).to(art.device)
            image[places] = drawn[:, :3] + (1 - drawn[:, 3:]) * image[places]
    for name, spoil in IMAGE_FLAWS.items():
        rows = np.flatnonzero(views.flaw == FLAW_NAMES.index(name))
        if len(rows):
            places, strength = torch.from_numpy(rows).to(art.device), column(views.strength[rows], art.device)
            image[places] = spoil(image[places], strength, views.draws[rows])
    return image.clamp_(0, 1)


def _things(art: Tensor, views: Views, slot: int) -> Tensor:
    """What is in a slot that none of the views has empty, alone on the canvas: (N, 4, 256, 256), premultiplied."""
    device = art.device
    rgba = art[torch.from_numpy(views.picture[:, slot]).to(device)].float() / 255
    rgba[:, :3] *= rgba[:, 3:]  # premultiplied, so that transparent pixels add nothing when neighbours are averaged
    affine = _affine(views.placement, slot, device)
    grid = functional.affine_grid(affine, [len(views), 1, *[OVERSAMPLING * SIZE_PX] * 2], align_corners=False)
    drawn = functional.avg_pool2d(functional.grid_sample(rgba, grid, align_corners=False), OVERSAMPLING)
    drawn *= column(views.placement.opacity[:, slot], device)
    coloured = np.flatnonzero(views.colour[:, slot] >= 0)
    if len(coloured):
        places = torch.from_numpy(coloured).to(device)
        drawn[places] = tint(drawn[places], np.array(list(COLOURS.values()))[views.colour[coloured, slot]])
    return _spoiled(drawn, affine, views)


def _spoiled(drawn: Tensor, affine: Tensor, views: Views) -> Tensor:
    """The flaws that things have, their surroundings have not."""
    for name in ("wrong hue", "missing part"):
        rows = np.flatnonzero(views.flaw == FLAW_NAMES.index(name))
        if not len(rows):
            continue
        places, strength = torch.from_numpy(rows).to(drawn.device), column(views.strength[rows], drawn.device)
        if name == "wrong hue":
            drawn[places] = wrong_hue(drawn[places], strength, views.draws[rows])
        else:
            local = functional.affine_grid(affine[places], [len(rows), 1, SIZE_PX, SIZE_PX], align_corners=False)
            drawn[places] = missing_part(drawn[places], local, strength, views.draws[rows])
    return drawn


def _settled(art: Tensor, views: Views) -> Placement:
    """The placement with what is "on" something standing on it: the lowest pixel of one meets the top of the other."""
    rows = np.flatnonzero(views.layout == ON)
    if not len(rows):
        return views.placement
    y, side = views.placement.y.copy(), views.placement.side[rows]
    bottom = _extent(art, views.picture[rows, 0])[1] * side[:, 0]
    top = _extent(art, views.picture[rows, 1])[0] * side[:, 1]
    sink = _SINK[views.concept[rows, 1]] * side[:, 1]
    y[rows, 0] = y[rows, 1] + top + sink - bottom
    return replace(views.placement, y=y)


def _extent(art: Tensor, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Top and bottom of what is opaque in the pictures (N,), in their widths from the middle, down."""
    opaque = (art[torch.from_numpy(picture).to(art.device), 3] > 127).any(2).float()  # (N, H)
    height = opaque.shape[1]
    top, bottom = opaque.argmax(1), height - opaque.flip(1).argmax(1)
    return top.cpu().numpy() / height - 0.5, bottom.cpu().numpy() / height - 0.5


def tint(rgba: Tensor, hue: np.ndarray) -> Tensor:
    """The objects (N, 4, H, W), premultiplied, in one hue each (N,), in turns; light and shade are kept."""
    value, low = rgba[:, :3].amax(1, keepdim=True), rgba[:, :3].amin(1, keepdim=True)
    saturation = (0.6 + 0.35 * (value - low) / value.clamp(min=1e-3)).clamp(0, 1)
    pure = torch.tensor([colorsys.hsv_to_rgb(turn, 1, 1) for turn in hue], dtype=rgba.dtype)
    pure = pure.to(rgba.device)[:, :, None, None]
    return torch.cat([value * (1 - saturation * (1 - pure)), rgba[:, 3:]], 1)


def _affine(placement: Placement, slot: int, device: torch.device) -> Tensor:
    """Where in the art, [-1, 1] a side, each place of the canvas looks: (N, 2, 3)."""
    x, y, side, angle = (torch.from_numpy(getattr(placement, name)[:, slot]) for name in ("x", "y", "side", "angle"))
    turn, x, y = torch.deg2rad(angle), 2 * x - 1, 2 * y - 1
    cos, sin = torch.cos(turn) / side, torch.sin(turn) / side
    rows = torch.stack([cos, sin, -cos * x - sin * y, -sin, cos, sin * x - cos * y], 1)
    return rows.view(-1, 2, 3).float().to(device)


def to_bytes(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8."""
    return (images.clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).cpu().numpy()
