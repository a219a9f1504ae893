"""The clean, centred picture behind every caption, as latents: what a sketch from words alone should come to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from train.emoji.concepts import BACKGROUNDS, COLOURS, CONCEPT_SETS, STYLES, concepts
from train.emoji.data import View, place
from train.emoji.latents import LatentBasis


def clean_views(concept_set: str) -> list[View]:
    """Every concept in every style, colour and background, once."""
    names = list(concepts())
    return [
        View(names.index(name), style, background, colour, "")
        for name in CONCEPT_SETS[concept_set]()
        for style in range(len(STYLES))
        for colour in range(-1, len(COLOURS))
        for background in range(len(BACKGROUNDS))
    ]


def clean_index(views: list[View], concept_set: str) -> np.ndarray:
    """For each view the row of `clean_views` with the same caption; -1 where its concept is not in the set."""
    names, order = list(concepts()), {name: number for number, name in enumerate(CONCEPT_SETS[concept_set]())}
    rows = []
    for view in views:
        picture = order.get(names[view.concept], -1) * len(STYLES) + view.style
        row = (picture * (len(COLOURS) + 1) + view.colour + 1) * len(BACKGROUNDS) + view.background
        rows.append(row if picture >= 0 else -1)
    return np.array(rows)


def clean_latents(data: Path, basis: LatentBasis, concept_set: str) -> np.ndarray:
    """float16 latents (N, 32, 8, 8) of `clean_views`, centred; made once and kept in `data`.

    A latent is affine in the background's colour, so four renders of a picture (on black, red, green and blue) and one
    on black for each tint give all its colours on all backgrounds.
    """
    file = data / f"clean-{concept_set}.npy"
    if not file.exists():
        art, names = np.load(data / "art.npy", mmap_mode="r"), list(concepts())
        pictures = [
            art[names.index(name) * len(STYLES) + style]
            for name in CONCEPT_SETS[concept_set]()
            for style in range(len(STYLES))
        ]
        latents = np.concatenate([on_all_backgrounds(picture, basis) for picture in pictures])
        partial = file.with_suffix(f".{os.getpid()}.npy")
        np.save(partial, latents)
        partial.replace(file)
    kept: np.ndarray = np.load(file)
    return kept


def on_all_backgrounds(art: np.ndarray, basis: LatentBasis) -> np.ndarray:
    """(8 colours * 6 backgrounds, 32, 8, 8) float16 of one picture, in the order of `clean_views`."""
    plain = View(0, 0, 0, -1, "")
    on = [place(art, plain, paint) for paint in ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))]
    tinted = [place(art, View(0, 0, 0, colour, ""), (0, 0, 0)) for colour in range(len(COLOURS))]
    black, red, green, blue, *coloured = basis.encode(np.stack([*on, *tinted]))
    room = np.stack([red - black, green - black, blue - black])  # what full red, green, blue behind the object add
    behind = np.array(list(BACKGROUNDS.values()), np.float32) / 255  # (6, 3)
    backdrop = np.einsum("bc,cxyz->bxyz", behind, room)  # (6, 32, 8, 8)
    return np.concatenate([thing + backdrop for thing in (black, *coloured)]).astype(np.float16)


def regions(latents: torch.Tensor) -> torch.Tensor:
    """(B, 32, 8, 8) -> (B, 16, 128): 2x2 cells for each of the 4x4 regions, row by row."""
    cells = functional.pixel_unshuffle(latents, 2)  # (B, 128, 4, 4)
    return cells.flatten(2).transpose(1, 2)
