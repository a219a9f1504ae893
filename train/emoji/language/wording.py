"""How captions and prompts of the emoji family are worded: "two dogs next to a red car, 3d style, grass"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npo_core.catalog.nouns import plural, with_article
from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, GROUNDS, STYLES, UNCOUNTABLE, WITHOUT_ARTICLE, concepts
from train.emoji.drawing.motions import PHRASES

NUMBERS = ("", "one", "two", "three")
GRAMMAR = (
    "style",
    "background",
    "a",
    "an",
    "on",
    "the",
    "of",
    "with",
    "and",
    "next",
    "to",
    "above",
    "in",
    "under",
    ",",
)


def thing(concept: str, colour: str = "", number: int = 1, article: bool = True) -> str:
    """ "a red car", "two red cars", "grapes"; `article=False`: "red car"."""
    if number > 1:
        return " ".join(filter(None, (NUMBERS[number], colour, plural(concept))))
    named = f"{colour} {concept}".strip()
    return with_article(named) if article and concept not in WITHOUT_ARTICLE else named


def caption(
    first: str,
    second: str,
    layout: str,
    motion: str,
    style: str,
    backdrop: str,
    chance: Sequence[float] | np.ndarray = (1.0,) * 5,
) -> str:
    """One caption of what is not "". chance: five draws from [0, 1) for the wordings that are rarer; at 1 the usual."""
    relation = "and" if layout == "next to" and chance[4] < 0.2 else layout
    things = " ".join(filter(None, (first, relation if second else "", second, motion)))
    look = "" if not style or 0.95 < chance[1] < 1 else f"{style} style"
    behind = backdrop if backdrop in GROUNDS or not backdrop else f"{backdrop} background"
    if backdrop == "white" and chance[2] < 0.8:  # white goes without saying
        behind = ""
    if behind and chance[3] < 0.15:
        things, behind = f"{things} {GROUNDS.get(backdrop) or f'on a {behind}'}", ""
    return ", ".join(filter(None, (things, look, behind)))


def words() -> list[str]:
    """Every word that a caption can have, sorted: what the tokenizer is built from."""
    names = concepts()
    texts = [*names, *(plural(name) for name in names if name not in UNCOUNTABLE), *STYLES, *BACKGROUNDS, *COLOURS]
    texts += [*GROUNDS, *GROUNDS.values(), *PHRASES.values(), *NUMBERS, *GRAMMAR]
    return sorted({word for text in texts for word in text.split()})
