"""The emoji family's training latents: views drawn, encoded and captioned once, so that no training step has to.

python -m train.emoji.bank          # only the captions' tokens; train.emoji.base makes the latents, with a VAE
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from train.emoji.networks import MAX_TOKENS, build_tokenizer
from train.emoji.render import render
from train.emoji.training import native_precision
from train.emoji.vae import encode
from train.emoji.views import PICTURES, Views, captions, draw_views

DRAWN_AT_ONCE = 256
VIEWS_PER_PICTURE = 384


@dataclass(frozen=True)
class Bank:
    """latents: (N, 16, 16, 16) float16, scaled to mean square 1. tokens: (N, 32) int16, of each view's caption."""

    latents: Tensor
    tokens: Tensor


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(N, 32) int64."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def drawn_views(pictures: int, views_per_picture: int) -> Iterator[tuple[Views, list[str]]]:
    """`views_per_picture` random views of each of `pictures` pictures with their captions, in parts, always alike."""
    rows = np.repeat(np.arange(pictures), views_per_picture)
    for part in range(0, len(rows), DRAWN_AT_ONCE):
        rng = np.random.default_rng((2026, part))
        views = draw_views(rows[part : part + DRAWN_AT_ONCE], rng)
        yield views, captions(views, rng)


def load_tokens(file: Path, pictures: int, tokenizer: CLIPTokenizer, views_per_picture: int) -> Tensor:
    """(N, 32) int16, the tokens of the bank's captions, which may be made while the autoencoder is being trained."""
    if not file.exists():
        texts = [text for _, part in drawn_views(pictures, views_per_picture) for text in part]
        write_whole(file, token_ids(tokenizer, texts).to(torch.int16))
    return cast(Tensor, torch.load(file, weights_only=True))


@torch.no_grad()
def encode_views(art: Tensor, vae: Any, views: Views) -> Tensor:
    """Scaled float16 latents (N, 16, 16, 16) of `views`."""
    images = 2 * render(art, views) - 1
    with native_precision(art.device):
        latents = encode(vae, images)
    return (latents.float() * vae.config.scaling_factor).half()


def load_bank(work: Path, art: Tensor, vae: Any, tokenizer: CLIPTokenizer, views_per_picture: int) -> Bank:
    """The bank in `work` on the device of `art`; what is not there yet is made first."""
    tokens = load_tokens(work / "tokens.pt", len(art), tokenizer, views_per_picture)
    file = work / "latents.pt"
    if not file.exists():
        parts = [encode_views(art, vae, views) for views, _ in drawn_views(len(art), views_per_picture)]
        write_whole(file, torch.cat(parts))
    return Bank(torch.load(file, map_location=art.device, weights_only=True), tokens.to(art.device))


def write_whole(file: Path, content: Any) -> None:
    """Writes under another name first, so that a kill never leaves half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    torch.save(content, partial)
    partial.replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--views-per-picture", type=int, default=VIEWS_PER_PICTURE)
    arguments = parser.parse_args()
    tokenizer = build_tokenizer(arguments.work / "tokenizer")
    tokens = load_tokens(arguments.work / "tokens.pt", PICTURES, tokenizer, arguments.views_per_picture)
    print(f"{len(tokens)} captions")


if __name__ == "__main__":
    main()
