"""Small real pairs, stores with votes, and settings for the tests of `train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from collection.store import Store
from npo_core.catalog.families import ModelFamily
from npo_core.weights import load_adapter
from tests.collection.helpers import VARIANTS, cast, generation
from train.engine.config import TrainConfig
from train.pairs.pairs import PreferencePair

SHAPE = (4, 8, 8)  # the latents of tests.tiny
CLIP_SHAPE = (4, 4, 8, 8)  # frames first
PROMPTS = ("a red apple", "a cat", "a blue rocket")


class Brightness:
    """Likes bright pictures."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        return np.array([np.asarray(image).mean() / 127.5 - 1 for image in images])

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        return pixels.mean((1, 2, 3))


def random_pairs(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> list[PreferencePair]:
    """Pairs of noise: the preferred one a little brighter, so that there is something to learn."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, 2, *shape))
    return [
        PreferencePair(
            PROMPTS[number % len(PROMPTS)],
            (both[0] + 0.5).astype(np.float16),
            (both[1] - 0.5).astype(np.float16),
            f"v{number}",
        )
        for number, both in enumerate(noise)
    ]


def small_config(output_dir: Path, **changes: Any) -> TrainConfig:
    """A run of a second or two."""
    settings: dict[str, Any] = {
        "max_train_steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "rank": 2,
        "checkpoint_every": 2,
        "device": "cpu",
        "progress": False,
    }
    return replace(TrainConfig(family="tiny", output_dir=output_dir), **(settings | changes))


def weights_in(adapter: Path) -> list[tuple[str, bytes, bytes, float]]:
    """Every layer's name, bytes of A and B, and scale."""
    layers = load_adapter(adapter).layers
    return [(name, layer.a.numpy().tobytes(), layer.b.numpy().tobytes(), layer.scale) for name, layer in layers.items()]


def vote_in_store(store: Store, family: ModelFamily, choices: str, modality: str = "image", **options: Any) -> None:
    """A comparison and a vote for each letter: l(eft), r(ight), t(ie), b(oth bad), s(kip); options of each ballot."""
    shape = CLIP_SHAPE if modality == "video" else SHAPE
    names = {"l": "left", "r": "right", "t": "tie", "b": "both_bad", "s": "skip"}
    person = store.create_participant()
    random = np.random.default_rng(0)
    for number, letter in enumerate(choices):
        made = [
            generation(
                variant,
                f"{'clip ' if modality == 'video' else ''}comparison {number}",
                family=family.name,
                modality=modality,
                prompt=PROMPTS[number % len(PROMPTS)],
                latents=random.standard_normal(shape).astype(np.float16),
            )
            for variant in VARIANTS
        ]
        ids = store.add_generations(made)
        cast(store, person, ids[0], ids[1], names[letter], **options)
