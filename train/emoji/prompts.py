"""The prompts that the emoji family's adapters are trained and measured on.

    python -m train.emoji.prompts --out train/emoji/prompt_lists

Every fourth concept is held out: the preference pairs never show it, so that a win rate on held-out concepts tells
what was learned about pictures, not about those things.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.emoji.concepts import BACKGROUNDS, COLOURS, STYLES, concepts

HELD_OUT_EVERY = 4


def held_out_concepts() -> list[str]:
    """The concepts that no preference pair shows."""
    return list(concepts())[1::HELD_OUT_EVERY]


def pair_concepts() -> list[str]:
    """The concepts that preference pairs may show."""
    held_out = set(held_out_concepts())
    return [name for name in concepts() if name not in held_out]


def write_prompt(concept: str, rng: np.random.Generator) -> str:
    """A prompt for `concept` in a random style; one in four names a colour, two in three a background."""
    colour = f"{rng.choice(list(COLOURS))} " if rng.random() < 0.25 else ""
    thing = f"{colour}{concept}"
    background = f", {rng.choice(list(BACKGROUNDS))} background" if rng.random() < 0.67 else ""
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}, {rng.choice(STYLES)} style{background}"


def draw_prompts(names: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` different prompts, each concept as often as the others (give or take one)."""
    rng = np.random.default_rng(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        for name in rng.permutation(list(names)):
            prompts.setdefault(write_prompt(str(name), rng))
    return list(prompts)[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("train/emoji/prompt_lists"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lists = {
        "all_200.txt": draw_prompts(list(concepts()), 200, seed=1),
        "held_out_1005.txt": draw_prompts(held_out_concepts(), 1005, seed=2),
    }
    for name, prompts in lists.items():
        (arguments.out / name).write_text("\n".join(prompts) + "\n")


if __name__ == "__main__":
    main()
