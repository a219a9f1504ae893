"""The prompts that the emoji family's adapters are trained and measured on.

    python -m train.emoji.language.prompts --out train/emoji/prompt_lists

Every fourth concept is held out: the preference pairs never show it, so that a win rate on held-out concepts tells
what was learned about pictures, not about those things.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, GROUNDS, STYLES, SUPPORTS, UNCOUNTABLE, concepts
from train.emoji.language import wording

HELD_OUT_EVERY = 4
SCENE_SHARE = 0.4
COLOUR_SHARE = 0.25
PLAIN_SHARE, PAINTED_SHARE = 0.35, 0.4  # of backdrops that are told; the rest is left to the model
RELATION_SHARES = {"next to": 0.55, "on": 0.25, "above": 0.2}  # of scenes of two things
COUNT_SHARE = 0.3  # of scenes: several of one thing


def held_out_concepts() -> list[str]:
    """The concepts that no preference pair shows."""
    return list(concepts())[1::HELD_OUT_EVERY]


def pair_concepts() -> list[str]:
    """The concepts that preference pairs may show."""
    held_out = set(held_out_concepts())
    return [name for name in concepts() if name not in held_out]


def write_single(concept: str, names: Sequence[str], rng: np.random.Generator) -> str:
    """A prompt for one `concept`: "a red cat, 3d style, grass"."""
    return _prompt(_thing(concept, rng), "", "single", rng)


def write_two(concept: str, names: Sequence[str], rng: np.random.Generator) -> str:
    """A prompt for `concept` and another of the `names`: "a cat on a chair, 3d style, night sky"."""
    relation = str(rng.choice(list(RELATION_SHARES), p=list(RELATION_SHARES.values())))
    others = [name for name in names if name != concept and (relation != "on" or name in SUPPORTS)]
    return _prompt(_thing(concept, rng), _thing(str(rng.choice(others)), rng), relation, rng)


def write_scene(concept: str, names: Sequence[str], rng: np.random.Generator) -> str:
    """A prompt for a scene with `concept`: two things, or two or three of one."""
    if concept in UNCOUNTABLE or rng.random() >= COUNT_SHARE:
        return write_two(concept, names, rng)
    return _prompt(_thing(concept, rng, number=int(rng.integers(2, 4))), "", "count", rng)


def _thing(concept: str, rng: np.random.Generator, number: int = 1) -> str:
    colour = str(rng.choice(list(COLOURS))) if rng.random() < COLOUR_SHARE else ""
    return wording.thing(concept, colour, number)


def _prompt(first: str, second: str, layout: str, rng: np.random.Generator) -> str:
    chance = rng.random()
    backdrops = list(BACKGROUNDS) if chance < PLAIN_SHARE else list(GROUNDS)
    backdrop = str(rng.choice(backdrops)) if chance < PLAIN_SHARE + PAINTED_SHARE else ""
    return wording.caption(first, second, layout, "", str(rng.choice(STYLES)), backdrop)


def draw_prompts(names: Sequence[str], count: int, seed: int, scene_share: float = SCENE_SHARE) -> list[str]:
    """`count` different prompts of `names` alone, each as often as the others (give or take one) comes first."""
    rng = np.random.default_rng(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        for name in rng.permutation(list(names)):
            write = write_scene if rng.random() < scene_share else write_single
            prompt = write(str(name), names, rng)
            while prompt in prompts:  # the plainest come up again and again
                prompt = write(str(name), names, rng)
            prompts[prompt] = None
    return list(prompts)[:count]


def draw_scenes(names: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` prompts of two different things each."""
    rng = np.random.default_rng(seed)
    firsts = [str(name) for _ in range(-(-count // len(names))) for name in rng.permutation(list(names))]
    return [write_two(name, names, rng) for name in firsts[:count]]


def pair_prompts() -> list[str]:
    """What preference pairs are sampled from."""
    return draw_prompts(pair_concepts(), 6000, seed=3)


def choice_prompts() -> list[str]:
    """What settings are chosen by: of the pairs' concepts, but of no pair."""
    paired = set(pair_prompts())
    return [prompt for prompt in draw_prompts(pair_concepts(), 300, seed=5, scene_share=0.3) if prompt not in paired][
        :200
    ]


LISTS: dict[str, Callable[[], list[str]]] = {
    "all_200.txt": lambda: draw_prompts(list(concepts()), 200, seed=1),
    "pairs_6000.txt": pair_prompts,
    "choice_200.txt": choice_prompts,
    "held_out_1005.txt": lambda: draw_prompts(held_out_concepts(), 1005, seed=2),
    "scenes_two_200.txt": lambda: draw_scenes(held_out_concepts(), 200, seed=4),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("train/emoji/prompt_lists"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, draw in LISTS.items():
        (arguments.out / name).write_text("\n".join(draw()) + "\n")


if __name__ == "__main__":
    main()
