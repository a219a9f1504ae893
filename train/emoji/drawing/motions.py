"""The motions that the emoji family knows: where a picture is, how large, how turned and how opaque, at every moment.

A motion is a pure function of time, so that the frames of a clip and a still "caught in the act" (with which the base
learns the words) come from one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FRAMES = 16
FPS = 8.0


@dataclass(frozen=True)
class Pose:
    """How a picture is shown at some moments; all tensors have the shape of those moments.

    dx, dy: how far it has moved, in widths of the frame, right and down. scale: times its own size. angle: turned
    clockwise by so many degrees. opacity: 1 hides the background, 0 shows nothing but it.
    """

    dx: Tensor
    dy: Tensor
    scale: Tensor
    angle: Tensor
    opacity: Tensor


@dataclass(frozen=True)
class Motion:
    """A motion, what a caption calls it, and its course: t in [0, 1) -> what differs from standing still."""

    name: str
    phrase: str
    course: Callable[[Tensor], Mapping[str, Tensor]]


MOTIONS: dict[str, Motion] = {
    motion.name: motion
    for motion in (
        Motion("bounce", "bouncing", lambda t: {"dy": 0.1 - 0.26 * torch.sin(2 * math.pi * t).abs()}),
        Motion("slide_left", "sliding left", lambda t: {"dx": 0.26 - 0.52 * t}),
        Motion("slide_right", "sliding right", lambda t: {"dx": 0.52 * t - 0.26}),
        Motion("spin", "spinning", lambda t: {"angle": 360 * t}),
        Motion("zoom_in", "zooming in", lambda t: {"scale": 0.55 + 0.75 * t}),
        Motion("zoom_out", "zooming out", lambda t: {"scale": 1.3 - 0.75 * t}),
        Motion("shake", "shaking", lambda t: {"dx": 0.07 * torch.sin(8 * math.pi * t)}),
        Motion("fade", "fading", lambda t: {"opacity": 1 - 0.85 * t}),
    )
}
PHRASES: dict[str, str] = {motion.name: motion.phrase for motion in MOTIONS.values()}


def clip_times(frames: int = FRAMES) -> Tensor:
    """(F,) moments of a clip that loops: the frame after the last would be the first again."""
    return torch.arange(frames, dtype=torch.float32) / frames


def pose_at(motion: str | None, t: Tensor) -> Pose:
    """The pose of `motion` at moments t in [0, 1), any shape; None stands still."""
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    still = {"dx": zero, "dy": zero, "scale": one, "angle": zero, "opacity": one}
    return Pose(**still if motion is None else {**still, **MOTIONS[motion].course(t)})


def with_motion(caption: str, motion: str | None) -> str:
    """ "a red apple, 3d style" -> "a red apple bouncing, 3d style": the phrase follows the thing."""
    if motion is None:
        return caption
    thing, comma, rest = caption.partition(",")
    return f"{thing} {MOTIONS[motion].phrase}{comma}{rest}"
