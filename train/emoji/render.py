"""Draw views of the emoji family's art: many at once, on the CPU or a GPU, still pictures and frames of clips alike.

images = render(load_art(Path("data/emoji/art.npz")), draw_views(np.arange(8), np.random.default_rng(0)))
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.emoji.concepts import BACKGROUNDS, COLOURS
from train.emoji.views import FLAW_NAMES, Placement, Views

SIZE_PX = 128
OVERSAMPLING = 2  # drawn this much larger, then averaged: smooth edges at every scale and angle
BLOCKY_SIDES_PX = (14, 17, 20, 23)


def render(art: Tensor, views: Views) -> Tensor:
    """(N, 3, 128, 128) float32 in [0, 1] on the device of `art`, which is (pictures, 4, H, W) uint8 RGBA.

    A pure function of its arguments: what chance decides is in `views.draws`.
    """
    device = art.device
    rgba = art[torch.from_numpy(views.picture).to(device)].float() / 255
    _colour(rgba, views)
    rgba[:, :3] *= rgba[:, 3:]  # premultiplied, so that transparent pixels add nothing when neighbours are averaged
    placed = functional.grid_sample(rgba, _grid(views.placement, device), align_corners=False)
    placed *= _column(views.placement.opacity, device)
    paint = torch.tensor(list(BACKGROUNDS.values()), device=device)[torch.from_numpy(views.background).to(device)] / 255
    image = placed[:, :3] + (1 - placed[:, 3:]) * paint[:, :, None, None]
    image = functional.avg_pool2d(image, OVERSAMPLING)
    for index, name in enumerate(FLAW_NAMES):
        rows = np.flatnonzero(views.flaw == index)
        if name in FLAWS and len(rows):
            image[rows] = FLAWS[name](image[rows], views.draws[rows])
    return image.clamp_(0, 1)


def _colour(rgba: Tensor, views: Views) -> None:
    """Recolour in place the views with a colour, and those whose flaw is a wrong hue."""
    rows = np.flatnonzero(views.colour >= 0)
    if len(rows):
        rgba[rows] = tint(rgba[rows], np.array(list(COLOURS.values()))[views.colour[rows]])
    wrong = np.flatnonzero(views.flaw == FLAW_NAMES.index("hue"))
    for rows, tinted in ((wrong[views.draws[wrong, 1] < 0.5], True), (wrong[views.draws[wrong, 1] >= 0.5], False)):
        if len(rows):
            rgba[rows] = tint(rgba[rows], views.draws[rows, 0]) if tinted else rgba[rows][:, [1, 2, 0, 3]]


def tint(rgba: Tensor, hue: np.ndarray) -> Tensor:
    """The objects (N, 4, H, W) in one hue each (N,), in turns; light and shade are kept."""
    value, low = rgba[:, :3].amax(1, keepdim=True), rgba[:, :3].amin(1, keepdim=True)
    saturation = (0.6 + 0.35 * (value - low) / value.clamp(min=1e-3)).clamp(0, 1)
    pure = torch.tensor([colorsys.hsv_to_rgb(turn, 1, 1) for turn in hue], dtype=rgba.dtype, device=rgba.device)[
        :, :, None, None
    ]
    return torch.cat([value * (1 - saturation * (1 - pure)), rgba[:, 3:]], 1)


def _grid(placement: Placement, device: torch.device) -> Tensor:
    """Where in the art, [-1, 1] a side, each pixel of the large canvas looks: (N, H, W, 2)."""
    side, turn = torch.from_numpy(placement.side), torch.from_numpy(np.deg2rad(placement.angle))
    x, y = torch.from_numpy(2 * placement.x - 1), torch.from_numpy(2 * placement.y - 1)
    cos, sin = torch.cos(turn) / side, torch.sin(turn) / side
    rows = torch.stack([cos, sin, -cos * x - sin * y, -sin, cos, sin * x - cos * y], 1)
    affine = rows.view(-1, 2, 3).float().to(device)
    return functional.affine_grid(
        affine, [len(side), 1, OVERSAMPLING * SIZE_PX, OVERSAMPLING * SIZE_PX], align_corners=False
    )


def _column(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values).float().to(device).view(-1, 1, 1, 1)


def _between(low: float, high: float, draw: np.ndarray, image: Tensor) -> Tensor:
    """(N, 1, 1, 1): evenly spread draws from [0, 1) -> [low, high)."""
    return _column(low + (high - low) * draw, image.device)


def _blur(image: Tensor, draws: np.ndarray) -> Tensor:
    sigma = _between(2.0, 4.5, draws[:, 0], image)
    reach = torch.arange(-13, 14, device=image.device).view(1, 1, 1, -1)
    kernel = torch.exp(-0.5 * (reach / sigma) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, 0)  # (3N, 1, 1, 27)
    flat = functional.pad(image, (13, 13, 13, 13), mode="replicate").flatten(0, 1)[None]  # (1, 3N, H, W)
    flat = functional.conv2d(flat, kernel, groups=len(kernel))
    flat = functional.conv2d(flat, kernel.transpose(2, 3), groups=len(kernel))
    return flat[0].unflatten(0, (-1, 3))


def _washed(image: Tensor, draws: np.ndarray) -> Tensor:
    grey, share = _between(0.59, 0.86, draws[:, 0], image), _between(0.45, 0.7, draws[:, 1], image)
    return image + share * (grey - image)


def _dark(image: Tensor, draws: np.ndarray) -> Tensor:
    return image * _between(0.35, 0.6, draws[:, 0], image)


def _blocky(image: Tensor, draws: np.ndarray) -> Tensor:
    drawn = image.clone()
    choice = (draws[:, 0] * len(BLOCKY_SIDES_PX)).astype(int)
    for index, side in enumerate(BLOCKY_SIDES_PX):
        rows = np.flatnonzero(choice == index)
        if len(rows):
            small = functional.adaptive_avg_pool2d(image[rows], side)
            drawn[rows] = functional.interpolate(small, SIZE_PX, mode="bilinear", align_corners=False)
    return drawn


def _warped(image: Tensor, draws: np.ndarray) -> Tensor:
    count = len(image)
    plain = functional.affine_grid(
        torch.eye(2, 3, device=image.device).expand(count, 2, 3), [count, 1, SIZE_PX, SIZE_PX], align_corners=False
    )
    reach = _between(0.08, 0.16, draws[:, 0], image)[..., 0]  # in half canvas widths
    waves = [_between(1.5, 3.0, draws[:, column], image)[..., 0] * torch.pi for column in (1, 2)]
    phase = _between(0, 2 * torch.pi, draws[:, 3], image)[..., 0]
    shift_x = reach * torch.sin(waves[0] * plain[..., 1] + phase)
    shift_y = reach * torch.sin(waves[1] * plain[..., 0] + 2 * phase)
    grid = plain + torch.stack([shift_x, shift_y], -1)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _blotchy(image: Tensor, draws: np.ndarray) -> Tensor:
    cells = np.stack([np.random.default_rng(int(draw * 2**32)).standard_normal((3, 12, 12)) for draw in draws[:, 0]])
    noise = torch.from_numpy(cells).float().to(image.device) * _between(0.1, 0.2, draws[:, 1], image)
    return image + functional.interpolate(noise, SIZE_PX, mode="bicubic", align_corners=False)


FLAWS: dict[str, Callable[[Tensor, np.ndarray], Tensor]] = {  # "crop" is a pose, "hue" a colour
    "blur": _blur,
    "washed": _washed,
    "dark": _dark,
    "blocky": _blocky,
    "warped": _warped,
    "blotchy": _blotchy,
}


def to_bytes(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [0, 1] -> (N, H, W, 3) uint8."""
    return (images.clamp(0, 1) * 255 + 0.5).byte().permute(0, 2, 3, 1).cpu().numpy()
