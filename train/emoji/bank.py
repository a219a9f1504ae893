"""The emoji family's training latents: views drawn, encoded and captioned once, so that no training step has to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from train.emoji.networks import MAX_TOKENS
from train.emoji.render import render
from train.emoji.training import native_precision
from train.emoji.vae import encode
from train.emoji.views import Views, captions, draw_views

DRAWN_AT_ONCE = 256


@dataclass(frozen=True)
class Bank:
    """latents: (N, 8, 16, 16) float16, scaled to mean square 1. tokens: (N, 32) int16, of each view's caption."""

    latents: Tensor
    tokens: Tensor


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(N, 32) int64."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def build_bank(art: Tensor, vae: Any, tokenizer: CLIPTokenizer, views_per_picture: int) -> Bank:
    """`views_per_picture` random views of every picture, on the device of `art`."""
    rng = np.random.default_rng(2026)
    pictures = np.repeat(np.arange(len(art)), views_per_picture)
    latents, texts = [], []
    for start in range(0, len(pictures), DRAWN_AT_ONCE):
        views = draw_views(pictures[start : start + DRAWN_AT_ONCE], rng)
        latents.append(encode_views(art, vae, views))
        texts += captions(views, rng)
    return Bank(torch.cat(latents), token_ids(tokenizer, texts).to(torch.int16).to(art.device))


@torch.no_grad()
def encode_views(art: Tensor, vae: Any, views: Views) -> Tensor:
    """Scaled float16 latents (N, 8, 16, 16) of `views`."""
    images = 2 * render(art, views) - 1
    with native_precision(art.device):
        latents = encode(vae, images)
    return (latents.float() * vae.config.scaling_factor).half()


def load_bank(file: Path, art: Tensor, vae: Any, tokenizer: CLIPTokenizer, views_per_picture: int) -> Bank:
    """The bank in `file`, built first where there is none."""
    if not file.exists():
        bank = build_bank(art, vae, tokenizer, views_per_picture)
        partial = file.with_suffix(f".{os.getpid()}")
        torch.save(vars(bank), partial)
        partial.replace(file)
    return Bank(**torch.load(file, map_location=art.device, weights_only=True))
