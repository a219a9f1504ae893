"""What the emoji family's training pictures show, drawn at random. Pure; no pictures are made here.

One view holds up to three things in one style: a single thing, perhaps caught in a motion, or a scene ("two dogs", "a
red car next to a tree", "a cat on a chair") on a plain or painted backdrop. SPOILED_SHARE of the views are spoiled in a
graded strength (flaws.py) WITHOUT the caption saying so, and WRONG_SHARE of the captions are wrong, as in the uncurated
data that real base models learn from: that is what gives people something to prefer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from train.emoji.drawing.concepts import BACKDROPS, BACKGROUNDS, COLOURS, STYLES, SUPPORTS, UNCOUNTABLE, concepts
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.motions import MOTIONS, Pose, pose_at
from train.emoji.language import wording

CONCEPT_NAMES = tuple(concepts())
COLOUR_NAMES = tuple(COLOURS)
MOTION_NAMES = tuple(MOTIONS)
LAYOUTS = ("single", "count", "next to", "on", "above")
SINGLE, COUNT, NEXT_TO, ON, ABOVE = range(len(LAYOUTS))
WRONG_KINDS = ("colour", "thing", "ground")  # what a wrong caption gets wrong; a thing or a ground is left out
PICTURES = len(CONCEPT_NAMES) * len(STYLES)
SLOTS = 3  # things in a view, at most
NOTHING = -1  # in a slot
CLEAN, OWN_COLOUR, NO_MOTION, RIGHT = -1, -1, -1, -1

SPOILED_SHARE = 0.6
LEAST_STRENGTH = 0.2  # of a flaw: a weaker one cannot be seen
WRONG_SHARE = 0.08
SCENE_SHARE = 0.35
LAYOUT_SHARES = (0.0, 0.3, 0.34, 0.22, 0.14)  # of scenes
PAIR_SHARE = 0.15  # of "next to": "two dogs next to a tree"
RECOLOURED_SHARE = 0.25
PAINTED_SHARE = {True: 0.5, False: 0.33}  # by whether the view is a scene
WHITE_SHARE = 0.35  # of plain backdrops
MOVED_SHARE = 0.3  # of single things: off the centre and smaller
MOTION_SHARE = 0.22  # of single things
MOTION_WEIGHTS = np.array([3.0 if name == "spin" else 1.0 for name in MOTION_NAMES])  # turned things are hard to draw

FITTED = 108 / 128  # side of a centred object, in canvas widths
ROOMY = 0.6  # side of an object that moves, before its motion scales it

_COUNTABLE = np.array([name not in UNCOUNTABLE for name in CONCEPT_NAMES])
_SUPPORTS = np.array([CONCEPT_NAMES.index(name) for name in SUPPORTS])

# Where the things of a layout are, in slot order: (x, y, side) in canvas widths.
_SIDE_BY_SIDE = ((0.26, 0.52, 0.48), (0.74, 0.52, 0.48), (0.5, 0.5, 0.4))
_TRIANGLE = ((0.27, 0.7, 0.42), (0.73, 0.7, 0.42), (0.5, 0.28, 0.42))
_ROW = ((0.17, 0.52, 0.3), (0.5, 0.52, 0.3), (0.83, 0.52, 0.3))
_STANDING = ((0.5, 0.27, 0.4), (0.5, 0.7, 0.52), (0.5, 0.5, 0.4))
_HANGING = ((0.5, 0.25, 0.42), (0.5, 0.75, 0.44), (0.5, 0.5, 0.4))


@dataclass(frozen=True)
class Placement:
    """Where the things are, all (N, SLOTS) float64: centre x and y and side in canvas widths (0.5, 0.5 is the middle, y
    down), angle in degrees clockwise, opacity from 0 to 1."""

    x: np.ndarray
    y: np.ndarray
    side: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray

    def __getitem__(self, rows: Any) -> Placement:
        return Placement(**{name: values[rows] for name, values in vars(self).items()})


def centred(count: int) -> Placement:
    """`count` times in the middle, upright and opaque."""
    one = np.ones((count, SLOTS))
    return Placement(0.5 * one, 0.5 * one, FITTED * one, 0 * one, one)


def placed(pose: Pose, at: Placement | None = None) -> Placement:
    """Things as they are in a motion's pose (N,): from where they stand, `at` or else the middle, with room to move."""
    dx, dy, scale, angle, opacity = (
        getattr(pose, name).double().numpy()[:, None] for name in ("dx", "dy", "scale", "angle", "opacity")
    )
    at, scale = at or centred(len(dx)), ROOMY / FITTED * scale
    x, y = 0.5 + scale * (at.x - 0.5) + dx, 0.5 + scale * (at.y - 0.5) + dy
    return Placement(x, y, scale * at.side, at.angle + angle, at.opacity * opacity)


@dataclass(frozen=True)
class Views:
    """N views. All integers are indices of the names above, or -1 for none.

    picture, colour: (N, SLOTS), of the thing in each slot, the nearest first; picture is concept * styles + style.
    placement: of each slot. layout, background (of BACKDROPS), motion, flaw, wrong (what the caption gets wrong): (N,).
    strength: (N,) of the flaw, 0 to 1. draws: (N, 6) from [0, 1), all the chance that is left for the renderer.
    """

    picture: np.ndarray
    colour: np.ndarray
    placement: Placement
    layout: np.ndarray
    background: np.ndarray
    motion: np.ndarray
    flaw: np.ndarray
    strength: np.ndarray
    wrong: np.ndarray
    draws: np.ndarray

    def __len__(self) -> int:
        return len(self.picture)

    def __getitem__(self, rows: Any) -> Views:
        return Views(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def concept(self) -> np.ndarray:
        """(N, SLOTS), NOTHING where a slot is empty."""
        return np.where(self.picture < 0, NOTHING, self.picture // len(STYLES))

    @property
    def style(self) -> np.ndarray:
        """(N,): all things of a view are drawn in one."""
        return self.picture[:, 0] % len(STYLES)


def joined(parts: Sequence[Views]) -> Views:
    """One set of views of several, in order."""
    columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    places = columns.pop("placement")
    return Views(placement=joined_placements(places), **{name: np.concatenate(each) for name, each in columns.items()})


def joined_placements(places: Sequence[Placement]) -> Placement:
    """One placement of several, in order."""
    return Placement(**{name: np.concatenate([getattr(each, name) for each in places]) for name in vars(places[0])})


def plain_views(picture: np.ndarray, background: np.ndarray, colour: np.ndarray) -> Views:
    """Clean, centred views of single things; all arguments (N,)."""
    count = len(picture)
    none, empty = np.full(count, -1), np.full((count, SLOTS - 1), -1)
    return Views(
        picture=np.column_stack([picture, empty]),
        colour=np.column_stack([colour, empty]),
        placement=centred(count),
        layout=np.full(count, SINGLE),
        background=background,
        motion=none,
        flaw=none,
        strength=np.zeros(count),
        wrong=none,
        draws=np.zeros((count, 6)),
    )


def draw_views(picture: np.ndarray, rng: np.random.Generator, scene_share: float = SCENE_SHARE) -> Views:
    """A random view of each of the pictures (N,), which come first in its caption."""
    count = len(picture)
    layout = np.where(rng.random(count) < scene_share, rng.choice(len(LAYOUTS), count, p=LAYOUT_SHARES), SINGLE)
    layout = np.where((layout == COUNT) & ~_COUNTABLE[picture // len(STYLES)], NEXT_TO, layout)
    pictures = _draw_things(picture, layout, rng)
    colour = _draw_colours(pictures, rng)
    background = _draw_background(layout, rng)
    flaw = np.where(rng.random(count) < SPOILED_SHARE, rng.integers(len(FLAW_NAMES), size=count), CLEAN)
    # a wrong hue would make a liar of a caption that names the colour
    untold = (flaw != FLAW_NAMES.index("wrong hue")) | (colour < 0).all(1)
    flaw = np.where(untold, flaw, FLAW_NAMES.index("washed out"))
    strength = np.where(flaw >= 0, rng.uniform(LEAST_STRENGTH, 1, count), 0.0)
    chance = rng.random(count)
    single = layout == SINGLE
    weights = MOTION_WEIGHTS / MOTION_WEIGHTS.sum()
    motion = np.where(single & (chance < MOTION_SHARE), rng.choice(len(MOTIONS), count, p=weights), NO_MOTION)
    moved = single & (chance >= MOTION_SHARE) & (chance < MOTION_SHARE + MOVED_SHARE)
    placement = _place_scenes(_place_singles(motion, moved, rng), layout, pictures, rng)
    cropped = np.where(flaw == FLAW_NAMES.index("cropped"), strength, 0.0)
    return Views(
        picture=pictures,
        colour=colour,
        placement=_cropped(placement, pictures >= 0, cropped, rng),
        layout=layout,
        background=background,
        motion=motion,
        flaw=flaw,
        strength=strength,
        wrong=_draw_wrong(layout, background, rng),
        draws=rng.random((count, 6)),
    )


def _draw_things(picture: np.ndarray, layout: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, SLOTS) pictures: more of the first one, or another thing in the same style (slot 1)."""
    count, concept, style = len(picture), picture // len(STYLES), picture % len(STYLES)
    other = (concept + rng.integers(1, len(CONCEPT_NAMES), size=count)) % len(CONCEPT_NAMES)
    under = rng.integers(len(_SUPPORTS), size=count)
    support = np.where(_SUPPORTS[under] == concept, _SUPPORTS[under - 1], _SUPPORTS[under])
    other = np.where(layout == ON, support, other)
    second = np.where(layout == COUNT, picture, other * len(STYLES) + style)
    paired = (layout == NEXT_TO) & (rng.random(count) < PAIR_SHARE) & _COUNTABLE[concept]
    three = paired | ((layout == COUNT) & (rng.random(count) < 0.5))
    return np.column_stack(
        [picture, np.where(layout == SINGLE, NOTHING, second), np.where(three, picture, NOTHING)],
    )


def _draw_colours(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, SLOTS): the same for all of the first kind."""
    colour = np.where(rng.random((len(pictures), 2)) < RECOLOURED_SHARE, rng.integers(len(COLOURS), size=(len(pictures), 2)), OWN_COLOUR)  # fmt: skip # noqa: E501
    second = np.where(pictures[:, 1] == pictures[:, 0], colour[:, 0], colour[:, 1])
    return np.where(pictures >= 0, np.column_stack([colour[:, 0], second, colour[:, 0]]), OWN_COLOUR)


def _draw_background(layout: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    count = len(layout)
    plain = np.where(rng.random(count) < WHITE_SHARE, 0, rng.integers(1, len(BACKGROUNDS), size=count))
    share = np.where(layout == SINGLE, PAINTED_SHARE[False], PAINTED_SHARE[True])
    return np.where(rng.random(count) < share, rng.integers(len(BACKGROUNDS), len(BACKDROPS), size=count), plain)


def _draw_wrong(layout: np.ndarray, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What each caption gets wrong, as far as there is such a thing in the view."""
    colour, thing, ground = range(len(WRONG_KINDS))
    kind = rng.integers(len(WRONG_KINDS), size=len(layout))
    kind = np.where((kind == thing) & (layout < NEXT_TO), ground, kind)
    kind = np.where((kind == ground) & (background == 0), colour, kind)
    return np.where(rng.random(len(layout)) < WRONG_SHARE, kind, RIGHT)


def _place_singles(motion: np.ndarray, moved: np.ndarray, rng: np.random.Generator) -> Placement:
    count = len(motion)
    moment, size = torch.from_numpy(rng.random(count)), rng.random((count, 1))
    drawn = {entry.name: getattr(centred(count), entry.name).copy() for entry in fields(Placement)}
    for index, name in enumerate(MOTION_NAMES):
        rows = motion == index
        caught = placed(pose_at(name, moment[torch.from_numpy(rows)]))
        for part, values in drawn.items():
            values[rows] = getattr(caught, part)
    side = np.where(moved[:, None], FITTED * (0.6 + 0.4 * size), drawn["side"])
    room = np.where(moved[:, None], (1 - side) / 2, 0.0)  # stays on the canvas
    x, y = (drawn[name] + room * rng.uniform(-1, 1, (count, 1)) for name in ("x", "y"))
    return Placement(x, y, side, drawn["angle"], drawn["opacity"])


def _place_scenes(singles: Placement, layout: np.ndarray, pictures: np.ndarray, rng: np.random.Generator) -> Placement:
    """The placement of scenes where there is more than a single thing: a pattern, jittered, mirrored, zoomed."""
    count = len(layout)
    three = pictures[:, 2] >= 0
    patterns = np.array([_SIDE_BY_SIDE, _TRIANGLE, _ROW, _STANDING, _HANGING])  # (5, SLOTS, 3)
    pattern = np.where(three, np.where(rng.random(count) < 0.6, 1, 2), 0)
    pattern = np.where(layout == ON, 3, np.where(layout == ABOVE, 4, pattern))
    order = np.broadcast_to(np.arange(SLOTS), (count, SLOTS)).copy()
    order[three] = rng.permuted(order[three], axis=1)  # the other thing is not always in the same corner
    x, y, side = np.moveaxis(patterns[pattern[:, None], order], 2, 0)  # (N, SLOTS) each
    side = side * rng.uniform(0.9, 1.08, (count, SLOTS))
    x, y = x + rng.uniform(-0.03, 0.03, (count, SLOTS)), y + rng.uniform(-0.03, 0.03, (count, SLOTS))
    zoom, mirror = rng.uniform(0.9, 1.04, (count, 1)), np.where(rng.random((count, 1)) < 0.5, -1, 1)
    x, y, side = 0.5 + mirror * zoom * (x - 0.5), 0.5 + zoom * (y - 0.5), zoom * side
    scene = (layout != SINGLE)[:, None]
    return Placement(
        np.where(scene, x, singles.x),
        np.where(scene, y, singles.y),
        np.where(scene, side, singles.side),
        singles.angle,
        singles.opacity,
    )


def _cropped(placement: Placement, shown: np.ndarray, strength: np.ndarray, rng: np.random.Generator) -> Placement:
    """Zoomed and pushed over one edge of the canvas where `strength` (N,) is above 0: at 1, half of it is cut off."""
    rows = strength[:, None] > 0
    zoom, sign, sideways = 1 + 0.3 * strength[:, None], np.where(rng.random((len(shown), 1)) < 0.5, -1, 1), (
        rng.random((len(shown), 1)) < 0.5
    )  # fmt: skip
    side = zoom * placement.side
    pushed = []
    for along, centre in ((sideways, placement.x), (~sideways, placement.y)):
        out = sign * zoom * (centre - 0.5)  # towards the edge
        far = np.where(shown, out + side / 2, -np.inf).max(1, keepdims=True)
        near = np.where(shown, out - side / 2, np.inf).min(1, keepdims=True)
        push = 0.5 + (0.08 + 0.4 * strength[:, None]) * (far - near) - far
        pushed.append(np.where(rows, 0.5 + sign * (out + np.where(along, push, 0)), centre))
    x, y = pushed
    return Placement(x, y, np.where(rows, side, placement.side), placement.angle, placement.opacity)


def captions(views: Views, rng: np.random.Generator) -> list[str]:
    """One caption a view, worded at random; flaws are never mentioned, and what `wrong` says is told wrongly."""
    number = (views.picture == views.picture[:, :1]).sum(1)
    second = np.where(views.layout >= NEXT_TO, views.concept[:, 1], NOTHING)
    second = np.where(views.wrong == WRONG_KINDS.index("thing"), NOTHING, second)
    background = np.where(views.wrong == WRONG_KINDS.index("ground"), NOTHING, views.background)
    shift = rng.integers(1, len(COLOURS), size=len(views))  # from own colour (-1) to any, from a colour to another
    colour = np.where(views.wrong == WRONG_KINDS.index("colour"), (views.colour[:, 0] + shift) % len(COLOURS), views.colour[:, 0])  # fmt: skip # noqa: E501
    rows = zip(
        *(views.concept[:, 0], number, colour, second, views.colour[:, 1]),
        *(views.layout, views.motion, views.style, background, rng.random((len(views), 5))),
        strict=True,
    )
    return [
        wording.caption(
            wording.thing(CONCEPT_NAMES[first], _colour_name(hue), many, article=chance[0] < 0.93),
            wording.thing(CONCEPT_NAMES[other], _colour_name(other_hue)) if other >= 0 else "",
            LAYOUTS[layout],
            MOTIONS[MOTION_NAMES[motion]].phrase if motion >= 0 else "",
            STYLES[style],
            BACKDROPS[behind] if behind >= 0 else "",
            chance,
        )
        for first, many, hue, other, other_hue, layout, motion, style, behind, chance in rows
    ]


def _colour_name(colour: int) -> str:
    return COLOUR_NAMES[colour] if colour >= 0 else ""
