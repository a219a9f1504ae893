"""What the emoji family's training pictures show, drawn at random, and their captions. Pure; no pictures are made here.

One view is a concept in one style, perhaps recoloured, on one of six backgrounds, perhaps shifted and scaled or caught
in a motion. A third of the views are spoiled (blurred, washed out, badly cropped, off-colour, ...) WITHOUT the caption
saying so, as in the uncurated data that real base models learn from: that is what gives people something to prefer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from train.emoji.concepts import BACKGROUNDS, COLOURS, STYLES, concepts
from train.emoji.motions import MOTIONS, Pose, pose_at

CONCEPT_NAMES = tuple(concepts())
BACKGROUND_NAMES = tuple(BACKGROUNDS)
COLOUR_NAMES = tuple(COLOURS)
MOTION_NAMES = tuple(MOTIONS)
PICTURES = len(CONCEPT_NAMES) * len(STYLES)
FLAW_NAMES = ("blur", "washed", "dark", "blocky", "warped", "blotchy", "crop", "hue")
CLEAN, OWN_COLOUR, NO_MOTION = -1, -1, -1

SPOILED_SHARE = 0.33
RECOLOURED_SHARE = 0.25
MOVED_SHARE = 0.3  # off the centre and smaller
MOTION_SHARE = 0.15

FITTED = 108 / 128  # side of a centred object, in canvas widths
ROOMY = 0.6  # side of an object that moves, before its motion scales it


@dataclass(frozen=True)
class Placement:
    """Where the object is, all (N,) float64: centre x and y and side in canvas widths (0.5, 0.5 is the middle, y down),
    angle in degrees clockwise, opacity from 0 to 1."""

    x: np.ndarray
    y: np.ndarray
    side: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray


def centred(count: int) -> Placement:
    """`count` times in the middle, upright and opaque."""
    middle, one = np.full(count, 0.5), np.ones(count)
    return Placement(middle, middle, FITTED * one, 0 * one, one)


def placed(pose: Pose) -> Placement:
    """An object of side ROOMY as it is in a motion's pose (N,)."""
    dx, dy, scale, angle, opacity = (
        getattr(pose, name).double().numpy() for name in ("dx", "dy", "scale", "angle", "opacity")
    )
    return Placement(0.5 + dx, 0.5 + dy, ROOMY * scale, angle, opacity)


@dataclass(frozen=True)
class Views:
    """N views. picture: concept * styles + style. colour, flaw and motion are indices of the names above, or -1.
    draws: (N, 4) from [0, 1), all the chance that is left for the renderer. All others (N,)."""

    picture: np.ndarray
    background: np.ndarray
    colour: np.ndarray
    flaw: np.ndarray
    motion: np.ndarray
    placement: Placement
    draws: np.ndarray

    def __len__(self) -> int:
        return len(self.picture)

    @property
    def concept(self) -> np.ndarray:
        return self.picture // len(STYLES)

    @property
    def style(self) -> np.ndarray:
        return self.picture % len(STYLES)


def plain_views(picture: np.ndarray, background: np.ndarray, colour: np.ndarray) -> Views:
    """Clean, centred views."""
    none = np.full(len(picture), -1)
    return Views(picture, background, colour, none, none, centred(len(picture)), np.zeros((len(picture), 4)))


def draw_views(picture: np.ndarray, rng: np.random.Generator) -> Views:
    """A random view of each of the pictures (N,)."""
    count = len(picture)
    background = np.where(rng.random(count) < 0.35, 0, rng.integers(1, len(BACKGROUNDS), size=count))
    colour = np.where(rng.random(count) < RECOLOURED_SHARE, rng.integers(len(COLOURS), size=count), OWN_COLOUR)
    flaw = np.where(rng.random(count) < SPOILED_SHARE, rng.integers(len(FLAW_NAMES), size=count), CLEAN)
    # a wrong hue would make a liar of a caption that names the colour
    flaw = np.where((flaw == FLAW_NAMES.index("hue")) & (colour >= 0), FLAW_NAMES.index("blur"), flaw)
    chance = rng.random(count)
    motion = np.where(chance < MOTION_SHARE, rng.integers(len(MOTIONS), size=count), NO_MOTION)
    moved = (chance >= MOTION_SHARE) & (chance < MOTION_SHARE + MOVED_SHARE)
    placement = _draw_placement(motion, moved, flaw == FLAW_NAMES.index("crop"), rng)
    return Views(picture, background, colour, flaw, motion, placement, rng.random((count, 4)))


def _draw_placement(motion: np.ndarray, moved: np.ndarray, cropped: np.ndarray, rng: np.random.Generator) -> Placement:
    count = len(motion)
    moment, size = torch.from_numpy(rng.random(count)), rng.random(count)
    reach = rng.uniform(-1, 1, (2, count))
    drawn = {entry.name: getattr(centred(count), entry.name).copy() for entry in fields(Placement)}
    for index, name in enumerate(MOTION_NAMES):
        rows = motion == index
        caught = placed(pose_at(name, moment[torch.from_numpy(rows)]))
        for part, values in drawn.items():
            values[rows] = getattr(caught, part)
    side = np.where(moved, FITTED * (0.6 + 0.4 * size), drawn["side"])
    room = np.where(moved, (1 - side) / 2, 0.0)  # stays on the canvas
    side = np.where(cropped, FITTED * (1.3 + 0.5 * size), side)
    room = np.where(cropped, 0.3 * side, room)  # does not
    return Placement(drawn["x"] + room * reach[0], drawn["y"] + room * reach[1], side, drawn["angle"], drawn["opacity"])


def captions(views: Views, rng: np.random.Generator) -> list[str]:
    """One caption a view, worded at random; flaws are never mentioned."""
    return [
        _caption(CONCEPT_NAMES[concept], STYLES[style], background, colour, motion, rng.random(5))
        for concept, style, background, colour, motion in zip(
            views.concept, views.style, views.background, views.colour, views.motion, strict=True
        )
    ]


def _caption(
    concept: str, style: str, background: int, colour: int, motion: int, chance: Sequence[float] | np.ndarray
) -> str:
    thing = f"{COLOUR_NAMES[colour]} {concept}" if colour >= 0 else concept
    if chance[0] < 0.9:
        thing = ("an " if thing[0] in "aeiou" else "a ") + thing
    if motion >= 0:
        thing = f"{thing} {MOTIONS[MOTION_NAMES[motion]].phrase}"
    look = f"{style} style" if chance[1] < 0.95 else ""
    behind = f"{BACKGROUND_NAMES[background]} background"
    if background == 0 and chance[2] < 0.8:  # white goes without saying
        behind = ""
    if behind and chance[3] < 0.15:
        return ", ".join(filter(None, (f"{thing} on a {behind}", look)))
    return ", ".join(filter(None, (thing, look, behind)))
