"""Small real generations and stores for the tests of `collection`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from collection.store import Store
from collection.types import Choice, Generation, NewBallot

VARIANTS = ("base", "aligned", "aligned_npo")


def open_store(folder: Path, **options: Any) -> Store:
    """A store in `folder`."""
    return Store(f"sqlite:///{folder / 'npo.db'}", folder / "data", **options)


def generation(variant: str = "base", comparison_id: str = "c1", **changes: Any) -> Generation:
    """A generation whose media and latents differ per variant and comparison; `changes` replace fields."""
    number = sum(map(ord, variant + comparison_id))
    media = f"picture of {comparison_id} by {variant}".encode()
    fields: dict[str, Any] = {
        "comparison_id": comparison_id,
        "prompt": "a red apple, 3d style",
        "negative_prompt": "",
        "seed": 2**63 - 1,
        "family": "emoji",
        "modality": "image",
        "variant": variant,
        "aligned_id": "emoji-aligned",
        "aligned_sha256": "a" * 64,
        "negative_id": "emoji-negative",
        "negative_sha256": "b" * 64,
        "alpha": 1.0,
        "beta": 0.5,
        "guidance_scale": 4.0,
        "steps": 20,
        "scheduler": "ddim",
        "width_px": 128,
        "height_px": 128,
        "frames": 1,
        "fps": None,
        "versions": {"torch": "2.13.0"},
        "elapsed_s": 1.25,
        "media": media,
        "media_type": "image/png",
        "media_sha256": hashlib.sha256(media).hexdigest(),
        "latents": np.random.default_rng(number).standard_normal((8, 4, 4)).astype(np.float16),
    }
    return Generation(**fields | changes)


def add_comparison(store: Store, comparison_id: str = "c1", **changes: Any) -> dict[str, str]:
    """Stores one comparison of all variants; returns variant -> generation id."""
    made = [generation(variant, comparison_id, **changes) for variant in VARIANTS]
    return dict(zip(VARIANTS, store.add_generations(made), strict=True))


def cast(store: Store, participant_id: str, left: str, right: str, choice: Choice, **options: Any) -> str:
    """Issues a ballot on two generation ids and votes on it; returns the ballot id."""
    (ballot_id,) = store.create_ballots([NewBallot(left, right, participant_id, **options)])
    store.vote(ballot_id, participant_id, choice)
    return ballot_id
