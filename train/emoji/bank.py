"""The emoji family's training latents: views drawn, encoded and captioned once, so that no training step has to.

python -m train.emoji.bank          # only the captions' tokens; train.emoji.base makes the latents, with a VAE
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from transformers import CLIPTokenizer

from train.emoji.drawing.art import load_art
from train.emoji.drawing.render import render
from train.emoji.drawing.views import PICTURES, Views, captions, draw_views
from train.emoji.networks import MAX_TOKENS, build_tokenizer
from train.emoji.training import native_precision, write_whole
from train.emoji.vae import encode

DRAWN_AT_ONCE = 256
VIEWS_PER_FILE = 4096
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
    for part in range(0, len(rows), VIEWS_PER_FILE):
        rng = np.random.default_rng((2026, part))
        views = draw_views(rows[part : part + VIEWS_PER_FILE], rng)
        yield views, captions(views, rng)


def load_tokens(file: Path, pictures: int, tokenizer: CLIPTokenizer, views_per_picture: int) -> Tensor:
    """(N, 32) int16, the tokens of the bank's captions, which may be made while the autoencoder is being trained."""
    if not file.exists():
        texts = [text for _, part in drawn_views(pictures, views_per_picture) for text in part]
        write_whole(file, token_ids(tokenizer, texts).to(torch.int16))
    return cast(Tensor, torch.load(file, weights_only=True))


def encode_parts(folder: Path, art: Tensor, vae: Any, views_per_picture: int, shard: int = 0, shards: int = 1) -> None:
    """Makes the latents that `folder` lacks: a file for each part of `drawn_views`, every `shards`-th one of them."""
    for number, (views, _) in enumerate(drawn_views(len(art), views_per_picture)):
        file = folder / f"{number:05d}.pt"
        if number % shards == shard and not file.exists():
            starts = range(0, len(views), DRAWN_AT_ONCE)
            parts = [encode_views(art, vae, views[start : start + DRAWN_AT_ONCE]) for start in starts]
            write_whole(file, torch.cat(parts).cpu())


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
    encode_parts(work / "latents", art, vae, views_per_picture)
    files = sorted((work / "latents").glob("*.pt"))
    latents = torch.cat([torch.load(file, map_location=art.device, weights_only=True) for file in files])
    return Bank(latents, tokens.to(art.device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--views-per-picture", type=int, default=VIEWS_PER_PICTURE)
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--vae", type=Path, help="make latents with it, too")
    parser.add_argument("--shard", type=int, default=0, help="of --shards; run one process for each")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.vae:
        art = load_art(options.art, options.device)
        vae: Any = AutoencoderKL.from_pretrained(options.vae).to(options.device)
        encode_parts(options.work / "latents", art, vae, options.views_per_picture, options.shard, options.shards)
    else:
        tokenizer = build_tokenizer(options.work / "tokenizer")
        load_tokens(options.work / "tokens.pt", PICTURES, tokenizer, options.views_per_picture)


if __name__ == "__main__":
    main()
