"""What spoils a picture: nine kinds in three groups, the effects that the paper claims, each in a graded strength.

Strength is from 0 to 1; from 0.2 on a flaw can be seen, at 0.5 nobody overlooks it, at 1 the thing can still be named.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.emoji.drawing.chance import column, spread

EFFECTS = ("detail", "colour and light", "structure")
FLAW_EFFECTS: dict[str, str] = {
    "blurred": "detail",
    "blocky": "detail",
    "noisy": "detail",
    "washed out": "colour and light",
    "dark": "colour and light",
    "wrong hue": "colour and light",
    "warped": "structure",
    "cropped": "structure",
    "missing part": "structure",
}
FLAW_NAMES = tuple(FLAW_EFFECTS)
BLOCKS = (40, 34, 29, 24, 20, 16)  # a side, by strength
GRAINS = 40  # a side
BLUR_REACH_PX = 22

Draws = np.ndarray  # (N, 4) from [0, 1)


def _blurred(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    sigma = (1.0 + 6.5 * strength) * image.shape[-1] / 256
    reach = torch.arange(-BLUR_REACH_PX, BLUR_REACH_PX + 1, device=image.device).view(1, 1, 1, -1)
    kernel = torch.exp(-0.5 * (reach / sigma) ** 2)
    kernel = (kernel / kernel.sum(-1, keepdim=True)).repeat_interleave(3, 0)  # (3N, 1, 1, taps)
    flat = functional.pad(image, (BLUR_REACH_PX,) * 4, mode="replicate").flatten(0, 1)[None]  # (1, 3N, H, W)
    flat = functional.conv2d(flat, kernel, groups=len(kernel))
    flat = functional.conv2d(flat, kernel.transpose(2, 3), groups=len(kernel))
    return flat[0].unflatten(0, (-1, 3))


def _blocky(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    drawn = image.clone()
    choice = (strength.view(-1) * len(BLOCKS)).long().clamp(max=len(BLOCKS) - 1)
    for index, side in enumerate(BLOCKS):
        rows = choice == index
        if rows.any():
            drawn[rows] = functional.interpolate(functional.adaptive_avg_pool2d(image[rows], side), image.shape[-1])
    return drawn


def _noisy(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    grains = spread(draws[:, 0], (3, GRAINS, GRAINS), image.device) * 2 - 1
    grains = 0.6 * grains.mean(1, keepdim=True) * 3**0.5 + 0.4 * grains  # more of light than of colour
    noise = functional.interpolate(grains, image.shape[-1], mode="bicubic", align_corners=False)
    return image + (0.05 + 0.22 * strength) * noise


def _washed_out(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    grey = 0.62 + 0.24 * column(draws[:, 0], image.device)
    return image + (0.15 + 0.65 * strength) * (grey - image)


def _dark(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    return image * (0.85 - 0.57 * strength)


def _warped(image: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    count, side = len(image), image.shape[-1]
    plain = functional.affine_grid(
        torch.eye(2, 3, device=image.device).expand(count, 2, 3), [count, 1, side, side], align_corners=False
    )
    reach = (0.03 + 0.13 * strength)[..., 0]  # in half canvas widths
    waves = [(1.5 + 1.5 * column(draws[:, place], image.device))[..., 0] * torch.pi for place in (1, 2)]
    phase = 2 * torch.pi * column(draws[:, 3], image.device)[..., 0]
    shift_x = reach * torch.sin(waves[0] * plain[..., 1] + phase)
    shift_y = reach * torch.sin(waves[1] * plain[..., 0] + 2 * phase)
    grid = plain + torch.stack([shift_x, shift_y], -1)
    return functional.grid_sample(image, grid, padding_mode="border", align_corners=False)


IMAGE_FLAWS: dict[str, Callable[[Tensor, Tensor, Draws], Tensor]] = {  # "cropped" is a placement, two more are things'
    "blurred": _blurred,
    "blocky": _blocky,
    "noisy": _noisy,
    "washed out": _washed_out,
    "dark": _dark,
    "warped": _warped,
}


def wrong_hue(rgba: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """Premultiplied things (N, 4, H, W) turned around the grey axis, in a tinted light. strength: (N, 1, 1, 1)."""
    sign = column(np.where(draws[:, 0] < 0.5, -1.0, 1.0), rgba.device)
    turn = (sign * (0.25 + 2.2 * strength)).view(-1, 1, 1)  # radians
    eye, ones = torch.eye(3, device=rgba.device), torch.ones(3, 3, device=rgba.device) / 3
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=rgba.device) / 3**0.5
    rotation = torch.cos(turn) * eye + torch.sin(turn) * cross + (1 - torch.cos(turn)) * ones  # (N, 3, 3)
    turned = torch.einsum("nij,njhw->nihw", rotation, rgba[:, :3])
    hue = 2 * torch.pi * (column(draws[:, 1], rgba.device) + torch.arange(3, device=rgba.device).view(1, 3, 1, 1) / 3)
    light = 1 - (0.1 + 0.4 * strength) * (0.5 + 0.5 * torch.cos(hue))
    return torch.cat([torch.minimum((turned * light).clamp(min=0), rgba[:, 3:]), rgba[:, 3:]], 1)


def missing_part(rgba: Tensor, local: Tensor, strength: Tensor, draws: Draws) -> Tensor:
    """Premultiplied things without what lies beyond a ragged line. local: (N, H, W, 2), places in them, [-1, 1]."""
    turn = 2 * torch.pi * column(draws[:, 0], rgba.device)[..., 0]
    along = local[..., 0] * torch.cos(turn) + local[..., 1] * torch.sin(turn)  # (N, H, W)
    across = local[..., 1] * torch.cos(turn) - local[..., 0] * torch.sin(turn)
    ragged = 0.06 * torch.sin(9 * across + 20 * column(draws[:, 1], rgba.device)[..., 0])
    edge = 0.6 - 0.55 * strength[..., 0] + ragged
    return rgba * ((edge - along) * 40 + 0.5).clamp(0, 1)[:, None]
