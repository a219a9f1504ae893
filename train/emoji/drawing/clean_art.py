"""Look at clean art once, so that evaluation can say how far pictures are from it without having the art.

    python -m train.emoji.drawing.clean_art --art data/emoji/art.npz --out train/judging/clean_art.npz  # two minutes

Of the concepts that no preference pair shows: the features of KID, and the plain measures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from npo_core.console import exit_status
from train.emoji.drawing.art import load_art
from train.emoji.drawing.concepts import STYLES
from train.emoji.drawing.render import render
from train.emoji.drawing.views import CLEAN, CONCEPT_NAMES, NO_MOTION, Views, draw_views, joined
from train.emoji.language.prompts import held_out_concepts
from train.engine.files import replacing
from train.judging.features import Features
from train.judging.plain import MEASURES

SEED = 97
DRAWN_AT_ONCE = 64


def clean_views(count: int) -> Views:
    """`count` views of held-out concepts at rest and without a flaw, singles and scenes as the family's captions have
    them."""
    rng = np.random.default_rng(SEED)
    places = np.array([CONCEPT_NAMES.index(name) for name in held_out_concepts()])
    found: list[Views] = []
    while sum(map(len, found)) < count:
        pictures = rng.choice(places, 4 * DRAWN_AT_ONCE) * len(STYLES) + rng.integers(
            len(STYLES), size=4 * DRAWN_AT_ONCE
        )
        views = draw_views(pictures, rng)
        found.append(views[(views.flaw == CLEAN) & (views.motion == NO_MOTION)])
    return joined(found)[:count]


def measured(art: Tensor, views: Views, features: Features) -> dict[str, np.ndarray]:
    """ "features" (N, 1280) float16, and every plain measure (N,) float32."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(views), DRAWN_AT_ONCE):
        pixels = render(art, views[start : start + DRAWN_AT_ONCE])
        pixels = (255 * pixels).round() / 255  # as pictures are
        seen = {"features": features(pixels).half()} | {name: measure(pixels) for name, measure in MEASURES.items()}
        parts.append({name: values.cpu().numpy() for name, values in seen.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def run(arguments: argparse.Namespace) -> None:
    """Raises InputError where the network's packages are missing."""
    features = Features(arguments.device)
    found = measured(load_art(arguments.art, arguments.device), clean_views(arguments.views), features)
    with replacing(arguments.out) as opened:
        np.savez_compressed(opened, **found)  # type: ignore[arg-type]
    print({name: round(float(values.mean()), 4) for name, values in found.items() if name != "features"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--out", type=Path, default=Path("train/judging/clean_art.npz"))
    parser.add_argument("--views", type=int, default=600)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    return exit_status(lambda: run(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
