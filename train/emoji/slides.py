"""Teach the emoji family's motion adapter which way "left" and "right" are, on top of train.emoji.motion.

    python -m train.emoji.slides --export npo_core/emoji            # half an hour on two cores

What was wrong: things slid, but as often as not the other way. A probe showed why: the frozen UNet's features tell
where left is (a position's place is read off them with an R2 of 0.9 to 1 at every level but the finest), and they tell
"zooming in" from "zooming out", but not "sliding left" from "sliding right", whose word no cross-attention heeds. So
first the embeddings of these two words are moved until the UNet's own features tell them apart (by linear heads, thrown
away after), while what the UNet predicts stays as without the words: else they drown out the thing that slides. Then
the adapter is trained on, mostly with slides at noisy timesteps, where their course is settled.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import MotionAdapter, StableDiffusionPipeline, UNetMotionModel
from torch import Tensor, nn
from torch.nn import functional

from train.emoji.art import load_art
from train.emoji.bank import encode_views, token_ids
from train.emoji.concepts import BACKGROUNDS, STYLES, concepts
from train.emoji.motion import NOISY_SHARE, ClipBank, draw_clips, frames_of
from train.emoji.motions import FRAMES
from train.emoji.views import MOTION_NAMES, captions

WORDS = ("left", "right")
SLIDES = tuple(MOTION_NAMES.index(name) for name in ("slide_left", "slide_right"))
APART = 1.0  # how far from their old embeddings the words start, in standard deviations of all embeddings
TEACHING_STEPS, TAUGHT_AT_ONCE, NOISY_FROM = 480, 8, 600
KEPT = 10.0  # weight of what the words change in the prediction
SLIDING_CLIPS, OTHER_CLIPS = 480, 320
SLIDES_AT_ONCE, OTHERS_AT_ONCE = 5, 1
SLIDES_NOISY_SHARE = 0.15
LEARNING_RATE, WARMUP_STEPS, EMA_DECAY = 3e-4, 20, 0.98
REPORT_EVERY, SAVE_EVERY = 10, 50


@contextmanager
def words_replaced(text_encoder: Any, ids: list[int], rows: Tensor) -> Iterator[None]:
    """Within this context the tokens `ids` (K,) have the embeddings `rows` (K, width), through which gradients flow."""
    table = text_encoder.get_input_embeddings()
    place = torch.full((table.num_embeddings,), -1)
    place[ids] = torch.arange(len(ids))

    def replaced(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        found = place[inputs[0]]
        return torch.where((found >= 0)[..., None], rows[found.clamp(min=0)], output)

    handle = table.register_forward_hook(replaced)
    try:
        yield
    finally:
        handle.remove()


def teach_words(pipeline: Any, steps: int = TEACHING_STEPS) -> None:
    """Moves the embeddings of WORDS until every attention block of the UNet tells "sliding left" from "sliding right"
    at noisy timesteps, whatever slides, and its prediction is little different from that without these two words."""
    unet, text = pipeline.unet.requires_grad_(False), pipeline.text_encoder.requires_grad_(False)
    table = text.get_input_embeddings()
    ids = [pipeline.tokenizer(word).input_ids[1] for word in WORDS]
    generator = torch.Generator().manual_seed(0)
    weight = table.weight.detach()
    apart = torch.randn(len(ids), weight.shape[1], generator=generator)
    rows = nn.Parameter(weight[ids] + APART * weight.std() * apart)
    blocks = [name for name, _ in unet.named_modules() if name.split(".")[-2:-1] == ["attentions"]]
    features: dict[str, Tensor] = {}
    hooks = [
        unet.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: features.__setitem__(name, output[0].mean((2, 3)))
        )
        for name in blocks
    ]
    widths = {name: unet.get_submodule(name).norm.num_channels for name in blocks}
    heads = {
        name: nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 1))
        for name, width in widths.items()
    }
    trained = [{"params": [rows], "lr": 5e-3}, {"params": nn.ModuleList(heads.values()).parameters(), "lr": 1e-2}]
    optimizer = torch.optim.Adam(trained)
    truth = torch.cat([torch.ones(TAUGHT_AT_ONCE), -torch.ones(TAUGHT_AT_ONCE)])
    rng = np.random.default_rng(0)
    shape = (TAUGHT_AT_ONCE, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    with words_replaced(text, ids, rows):
        for step in range(steps):
            things = _things(rng)
            noise = torch.randn(shape, generator=generator)
            timesteps = torch.randint(NOISY_FROM, 1000, (TAUGHT_AT_ONCE,), generator=generator)
            with torch.no_grad():
                still = unet(
                    noise, timesteps, _states(pipeline, [f"a {thing}, {rest}" for thing, rest in things])
                ).sample
            prompts = [f"a {thing} sliding {word}, {rest}" for word in WORDS for thing, rest in things]
            predicted = unet(noise.repeat(2, 1, 1, 1), timesteps.repeat(2), _states(pipeline, prompts)).sample
            told = {name: heads[name](features[name])[:, 0] for name in blocks}
            telling = torch.stack([functional.softplus(-truth * each).mean() for each in told.values()]).mean()
            changed = (predicted - still.repeat(2, 1, 1, 1)).square().mean() / still.square().mean()
            loss = telling + KEPT * changed
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (step + 1) % REPORT_EVERY == 0:
                right = torch.stack([(each.sign() == truth).float().mean() for each in told.values()])
                print(
                    f"words {step + 1}/{steps} told apart {right.mean():.2f}, changed {changed.item():.3f}", flush=True
                )
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        table.weight[ids] = rows


def _things(rng: np.random.Generator) -> list[tuple[str, str]]:
    """(thing, what comes after the comma) of TAUGHT_AT_ONCE prompts."""
    things = []
    for _ in range(TAUGHT_AT_ONCE):
        behind = f", {rng.choice(list(BACKGROUNDS)[1:])} background" if rng.random() < 0.5 else ""
        things.append((str(rng.choice(sorted(concepts()))), f"{rng.choice(STYLES)} style{behind}"))
    return things


def _states(pipeline: Any, prompts: list[str]) -> Tensor:
    """(prompts, tokens, width) the text encoder's states."""
    states: Tensor = pipeline.text_encoder(token_ids(pipeline.tokenizer, prompts))[0]
    return states


@torch.no_grad()
def build_bank(art: Tensor, pipeline: Any, count: int, motions: tuple[int, ...] | None, seed: int) -> ClipBank:
    """`count` clips of random pictures, each one of `motions` (None: any, or still)."""
    rng = np.random.default_rng(seed)
    latents, texts = [], []
    for _ in range(0, count, 16):
        clips = draw_clips(rng.integers(len(art), size=16), rng)
        if motions is not None:
            clips = replace(clips, motion=rng.choice(motions, size=16))
        encoded = encode_views(art, pipeline.vae, frames_of(clips))
        latents.append(encoded.unflatten(0, (-1, FRAMES)).transpose(1, 2))
        texts += captions(clips, rng)
    return ClipBank(torch.cat(latents), token_ids(pipeline.tokenizer, texts))


def train_on(pipeline: Any, adapter: Any, slides: ClipBank, others: ClipBank, steps: int, work: Path) -> Any:
    """Trains the adapter further; returns a UNetMotionModel with the averaged weights."""
    unet: Any = UNetMotionModel.from_unet2d(pipeline.unet, adapter)
    unet.freeze_unet2d_params()
    text = pipeline.text_encoder.requires_grad_(False)
    weights = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    alphas = pipeline.scheduler.alphas_cumprod
    shares = torch.tensor([SLIDES_NOISY_SHARE] * SLIDES_AT_ONCE + [NOISY_SHARE] * OTHERS_AT_ONCE)
    started_s = time.perf_counter()
    for step in range(steps):
        chance = torch.Generator().manual_seed(step)
        rows = [
            torch.randint(len(bank.latents), (count,), generator=chance)
            for bank, count in ((slides, SLIDES_AT_ONCE), (others, OTHERS_AT_ONCE))
        ]
        clean = torch.cat([slides.latents[rows[0]], others.latents[rows[1]]]).float()  # (B, 8, F, 16, 16)
        tokens = torch.cat([slides.tokens[rows[0]], others.tokens[rows[1]]]).long()
        timesteps = (torch.rand(len(clean), generator=chance) ** shares * len(alphas)).long().clamp(max=len(alphas) - 1)
        noise = torch.randn(clean.shape, generator=chance)
        signal = alphas[timesteps].sqrt().view(-1, 1, 1, 1, 1)
        sigma = (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1, 1)
        with torch.no_grad():
            states = text(tokens)[0].repeat_interleave(clean.shape[2], dim=0)
        predicted = unet(signal * clean + sigma * noise, timesteps, states, return_dict=False)[0]
        loss = (predicted - (signal * noise - sigma * clean)).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(average, weights, 1 - min(EMA_DECAY, (1 + step) / (10 + step)))
        if (step + 1) % REPORT_EVERY == 0:
            each_s = (time.perf_counter() - started_s) / (step + 1)
            print(f"step {step + 1}/{steps} loss {loss.item():.4f} {each_s:.1f} s a step", flush=True)
        if (step + 1) % SAVE_EVERY == 0:
            torch.save(average, work / "slides.pt")
    with torch.no_grad():
        for weight, mean in zip(weights, average, strict=True):
            weight.copy_(mean)
    return unet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--base", type=Path, default=Path("npo_core/emoji"), help="with its motion adapter")
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--export", type=Path, required=True, help="write motion and text_encoder here")
    arguments = parser.parse_args()
    art = load_art(arguments.art, "cpu")
    pipeline: Any = StableDiffusionPipeline.from_pretrained(arguments.base, dtype=torch.float32)
    teach_words(pipeline)
    slides = build_bank(art, pipeline, SLIDING_CLIPS, SLIDES, seed=7)
    others = build_bank(art, pipeline, OTHER_CLIPS, None, seed=8)
    adapter: Any = MotionAdapter.from_pretrained(arguments.base / "motion", torch_dtype=torch.float32)
    unet = train_on(pipeline, adapter, slides, others, arguments.steps, arguments.work)
    weights = {name: value for name, value in unet.state_dict().items() if ".motion_modules." in name}
    adapter.load_state_dict(weights)
    adapter.half().save_pretrained(arguments.export / "motion")
    pipeline.text_encoder.half().save_pretrained(arguments.export / "text_encoder")


if __name__ == "__main__":
    main()
