"""Teach the emoji family's text encoder to sketch: from a caption alone, what the picture will roughly be.

    python -m train.emoji.text --data data/emoji --work data/emoji/base --steps 4000 --device cuda
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m train.emoji.text ...                 # two CPU cores

A UNet that hears of the prompt through cross-attention alone needs very long to learn what goes WHERE: every position
is told the same words. Here the last 16 of the encoder's 32 positions, which see the whole prompt before them, each
learn to predict one region (2x2 cells of the 8x8 latents) of the clean, centred picture. A position of the UNet then
has only to attend to its own region's token. This costs a fiftieth of a UNet step, and it is done once, before base.py.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from train.emoji.base import MAX_TOKENS, REGION_TOKENS, TEXT_WIDTH, build_text_encoder, build_tokenizer, learning_rate
from train.emoji.clean import clean_latents, clean_views, regions
from train.emoji.concepts import BACKGROUNDS, COLOURS, CONCEPT_SETS, SHIPPED_SET
from train.emoji.data import caption
from train.emoji.latents import CHANNELS, encode_folder

AVERAGE_EVERY = 8


def draw_rows(views: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) indices into `clean_views`: three in four in the art's own colours, one in three on white."""
    pictures = rng.integers(views // (len(BACKGROUNDS) * (len(COLOURS) + 1)), size=count)
    colours = np.where(rng.random(count) < 0.75, 0, rng.integers(1, len(COLOURS) + 1, size=count))
    backgrounds = np.where(rng.random(count) < 0.2, 0, rng.integers(len(BACKGROUNDS), size=count))
    return (pictures * (len(COLOURS) + 1) + colours) * len(BACKGROUNDS) + backgrounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--work", type=Path, default=Path("data/emoji/base"))
    parser.add_argument("--concepts", choices=CONCEPT_SETS, default=SHIPPED_SET)
    parser.add_argument("--begin-with", dest="start", type=Path, help="a text.pt (of fewer concepts, say)")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    basis, _ = encode_folder(arguments.data)
    views = clean_views(arguments.concepts)
    targets = regions(torch.from_numpy(clean_latents(arguments.data, basis, arguments.concepts)).float())
    arguments.work.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(arguments.work / "tokenizer")
    torch.manual_seed(0)
    text = cast(Any, build_text_encoder(tokenizer)).to(arguments.device)
    head = nn.Linear(TEXT_WIDTH, 4 * CHANNELS).to(arguments.device)
    parameters = [*text.parameters(), *head.parameters()]
    if arguments.start and arguments.start.exists():
        state = torch.load(arguments.start, map_location=arguments.device, weights_only=True)
        text.load_state_dict(state["text"])
        head.load_state_dict(state["head"])
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    started = time.perf_counter()
    for step in range(arguments.steps):
        rng = np.random.default_rng((17, step, rank))
        rows = draw_rows(len(views), arguments.batch_size // processes, rng)
        words = [caption(views[row], rng) for row in rows]
        tokens = tokenizer(words, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, arguments.learning_rate)
        with torch.autocast(arguments.device, torch.bfloat16):
            sketched = head(text(tokens.input_ids.to(arguments.device))[0][:, -REGION_TOKENS:])
        wanted = targets[torch.from_numpy(rows)].to(arguments.device)
        loss = functional.mse_loss(sketched.float(), wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if processes > 1 and (step + 1) % AVERAGE_EVERY == 0:
            with torch.no_grad():
                for parameter in parameters:
                    dist.all_reduce(parameter)
                    parameter /= processes
        if rank == 0 and ((step + 1) % 100 == 0 or step + 1 == arguments.steps):
            rate = (step + 1) * arguments.batch_size / (time.perf_counter() - started)
            share = 1 - float(loss.detach()) / float(targets.var())
            print(f"step {step + 1}/{arguments.steps} explains {share:.3f} {rate:.0f} captions/s", flush=True)
            torch.save({"text": text.state_dict(), "head": head.state_dict()}, arguments.work / "text.tmp")
            (arguments.work / "text.tmp").replace(arguments.work / "text.pt")


if __name__ == "__main__":
    main()
