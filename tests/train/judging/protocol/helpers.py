"""A rater and a jury with random weights for the tiny family, in the files and formats of the real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from npo_core.catalog.families import ModelFamily
from npo_core.emoji.scorer import Labels, ScorerNet, header_of
from tests.tiny import GUIDE, tiny_family
from train.judging.jury import WORDS, JuryNet

CONCEPTS = list(GUIDE["concepts"])
FLAWS = ["blurred", "dark"]


def rated_family(folder: Path) -> ModelFamily:
    """The tiny family with a rater of its own."""
    family = tiny_family(folder)
    labels = Labels(tuple(CONCEPTS), ("3d",), ("white", "blue"), (), ("own", "red"), tuple(FLAWS))
    torch.manual_seed(4)
    state = {name: value for name, value in ScorerNet(labels).state_dict().items() if value.is_floating_point()}
    save_file(state, folder / "rater.safetensors", header_of(labels))
    return replace(family, scorer=str(folder / "rater.safetensors"))


def random_jury(folder: Path) -> Path:
    """A file as train.emoji.jury writes it."""
    torch.manual_seed(5)
    net = JuryNet(len(CONCEPTS) + 1 + len(FLAWS))
    file = folder / "jury.safetensors"
    labels = {**{name: [] for name in WORDS}, "concepts": CONCEPTS, "flaws": FLAWS}
    state = {name: value.contiguous() for name, value in net.state_dict().items() if value.is_floating_point()}
    save_file(state, file, {"labels": json.dumps(labels)})
    return file
