"""Teach the emoji family's clips which way "left" is, on top of train.emoji.motion.

    python -m train.emoji.slides --export npo_core/emoji            # 20 minutes on two cores, of which 7 drawing clips

Things slid, but to the right whatever the caption said: still pictures look alike whichever way they slide, so the base
learned to hear no difference between the two words, and a motion adapter hears of the caption through the base alone.
So first the embedding of "left" is moved until the base's own features tell it from "right" (by linear heads, thrown
away after) while its prediction stays close to the one for "right"; then word and adapter are trained together as in
train.emoji.motion, mostly on the two slides of the same picture from the same noise, at noisy timesteps, where a course
is settled. A few frames of a clip, each at its own position, tell the course: four cost a quarter of sixteen.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import MotionAdapter, StableDiffusionPipeline, UNetMotionModel
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from torch import Tensor, nn
from torch.nn import functional

from train.emoji.art import load_art
from train.emoji.bank import encode_views, token_ids
from train.emoji.motion import NOISY_SHARE, ClipBank, MotionWords, diffuse, draw_clips, frames_of
from train.emoji.motions import FRAMES
from train.emoji.prompts import draw_prompts, pair_concepts
from train.emoji.training import Run
from train.emoji.views import CLEAN, MOTION_NAMES, captions

LEFT, RIGHT = (MOTION_NAMES.index(name) for name in ("slide_left", "slide_right"))
SLIDING, OTHERS = 112, 96  # clips in the bank; of the sliding ones two, left and right
TEACHING_STEPS, TAUGHT_AT_ONCE, TEACHING_RATE, NOISY_FROM = 90, 8, 1e-2, 500
SLIDING_AT_ONCE, OTHERS_AT_ONCE, FRAMES_AT_ONCE = 2, 2, 4
SLIDING_NOISY_SHARE = 0.2
LEARNING_RATE, EMA_DECAY = 4e-4, 0.98


def teach_word(pipeline: Any, word: MotionWords, still: Tensor, steps: int = TEACHING_STEPS) -> None:
    """Moves the embedding of "left" until every attention block of the UNet tells "sliding left" from "sliding right"
    at noisy timesteps, whatever slides, and its prediction for both is nearly the same.

    still: (N, 8, 16, 16) latents of single frames.
    """
    unet, chance = pipeline.unet.requires_grad_(False), torch.Generator().manual_seed(1)
    prompts = draw_prompts(pair_concepts(), steps * TAUGHT_AT_ONCE, seed=21)
    alphas, features = pipeline.scheduler.alphas_cumprod, _Features(unet)
    optimizer = torch.optim.Adam([word.rows, *features.heads.parameters()], lr=TEACHING_RATE)
    for step in range(steps):
        things = [prompt.partition(",") for prompt in prompts[step * TAUGHT_AT_ONCE :][:TAUGHT_AT_ONCE]]
        left, right = (
            pipeline.text_encoder(
                token_ids(pipeline.tokenizer, [f"{a} sliding {way}{comma}{b}" for a, comma, b in things])
            )[0]
            for way in ("left", "right")
        )
        timesteps = torch.randint(NOISY_FROM, len(alphas), (TAUGHT_AT_ONCE,), generator=chance)
        clean = still[torch.randint(len(still), (TAUGHT_AT_ONCE,), generator=chance)].float()
        noise = torch.randn(clean.shape, generator=chance)
        noisy, _ = diffuse(clean, noise, alphas[timesteps])
        with torch.no_grad():
            expected = unet(noisy, timesteps, right).sample
            told_right = features.take()
        predicted = unet(noisy, timesteps, left).sample
        loss = features.telling(told_right, features.take()) + (predicted - expected).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 10 == 0:
            print(f"word {step + 1}/{steps} loss {loss.item():.3f}", flush=True)
    features.remove()


class _Features:
    """The mean output of every attention block of a UNet, and a linear head on each that tells right from left."""

    def __init__(self, unet: Any) -> None:
        names = [name for name, _ in unet.named_modules() if name.split(".")[-2:-1] == ["attentions"]]
        blocks = [unet.get_submodule(name) for name in names]
        self._found: dict[int, Tensor] = {}  # by the place in `blocks`: a UNet runs them in another order
        self._hooks = [
            block.register_forward_hook(
                lambda _, __, output, place=place: self._found.__setitem__(place, output[0].mean((2, 3)))
            )
            for place, block in enumerate(blocks)
        ]
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), nn.Linear(width, 1))
            for width in (block.norm.num_channels for block in blocks)
        )

    def take(self) -> list[Tensor]:
        """(N, width) of every block in the last forward pass."""
        return [self._found[place] for place in range(len(self.heads))]

    def telling(self, right: list[Tensor], left: list[Tensor]) -> Tensor:
        """How badly the heads tell the two: the mean logistic loss."""
        losses = [
            functional.softplus(-head(a)).mean() + functional.softplus(head(b)).mean()
            for head, a, b in zip(self.heads, right, left, strict=True)
        ]
        return torch.stack(losses).mean() / 2

    def remove(self) -> None:
        """Leaves the UNet as it was."""
        for hook in self._hooks:
            hook.remove()


@contextmanager
def showing(unet: Any, frames: Tensor) -> Iterator[None]:
    """Within this context the frames given to a UNetMotionModel are those numbered `frames` (K,) of a longer clip."""
    embeddings: list[Any] = [module for module in unet.modules() if isinstance(module, SinusoidalPositionalEmbedding)]
    whole = [embedding.pe for embedding in embeddings]
    for embedding in embeddings:
        embedding.pe = embedding.pe[:, frames]
    try:
        yield
    finally:
        for embedding, positions in zip(embeddings, whole, strict=True):
            embedding.pe = positions


@torch.no_grad()
def draw_slides(art: Tensor, pipeline: Any, count: int) -> tuple[ClipBank, ClipBank]:
    """`count` clean clips sliding left, and the same sliding right: the first, played backwards."""
    rng, latents, texts = np.random.default_rng(7), [], {LEFT: [], RIGHT: []}  # type: ignore[var-annotated]
    for start in range(0, count, 16):
        clips = draw_clips(rng.integers(len(art), size=16), rng)
        for way, said in texts.items():
            clips = replace(clips, motion=np.full(16, way), flaw=np.full(16, CLEAN))
            said += captions(clips, np.random.default_rng(start))
        latents.append(_encode(art, pipeline, replace(clips, motion=np.full(16, LEFT))))
    left = torch.cat(latents)
    return (
        ClipBank(left, token_ids(pipeline.tokenizer, texts[LEFT])),
        ClipBank(left.flip(2), token_ids(pipeline.tokenizer, texts[RIGHT])),
    )


@torch.no_grad()
def draw_others(art: Tensor, pipeline: Any, count: int) -> ClipBank:
    """`count` clips of any motion, or of none."""
    rng, latents, texts = np.random.default_rng(8), [], []
    for _ in range(0, count, 16):
        clips = draw_clips(rng.integers(len(art), size=16), rng)
        latents.append(_encode(art, pipeline, clips))
        texts += captions(clips, rng)
    return ClipBank(torch.cat(latents), token_ids(pipeline.tokenizer, texts))


def _encode(art: Tensor, pipeline: Any, clips: Any) -> Tensor:
    return encode_views(art, pipeline.vae, frames_of(clips)).unflatten(0, (-1, FRAMES)).transpose(1, 2)


class SlidesTrainer:
    """The base with the motion adapter in it, the word, the clips, and how to train one step further."""

    def __init__(
        self, pipeline: Any, adapter: Any, word: MotionWords, slides: tuple[ClipBank, ClipBank], others: ClipBank
    ) -> None:
        self.text, self.word, self.adapter = pipeline.text_encoder, word, adapter
        self.left, self.right, self.others = *slides, others
        self.unet: Any = UNetMotionModel.from_unet2d(pipeline.unet, adapter)
        self.unet.freeze_unet2d_params()
        self.alphas = pipeline.scheduler.alphas_cumprod

    def run(self, file: Path, steps: int) -> Run:
        """What is trained."""
        trained = [self.word.rows, *(weight for weight in self.unet.parameters() if weight.requires_grad)]
        return Run(trained, file, steps, LEARNING_RATE, EMA_DECAY)

    def step(self, number: int) -> Tensor:
        """Mean squared error of the predicted v over FRAMES_AT_ONCE frames of the clips of step `number`."""
        chance = torch.Generator().manual_seed(number)
        slide = torch.randint(len(self.left.latents), (SLIDING_AT_ONCE,), generator=chance)
        other = torch.randint(len(self.others.latents), (OTHERS_AT_ONCE,), generator=chance)
        frames = torch.randperm(self.left.latents.shape[2], generator=chance)[:FRAMES_AT_ONCE].sort().values
        chosen = ((self.left, slide), (self.right, slide), (self.others, other))
        clean = torch.cat([bank.latents[rows] for bank, rows in chosen])[:, :, frames].float()
        tokens = torch.cat([bank.tokens[rows] for bank, rows in chosen]).long()
        shares = torch.tensor([SLIDING_NOISY_SHARE] * SLIDING_AT_ONCE + [NOISY_SHARE] * OTHERS_AT_ONCE)
        drawn = torch.rand(len(shares), generator=chance) ** shares * len(self.alphas)
        drawn = drawn.long().clamp(max=len(self.alphas) - 1)
        noises = torch.randn((len(shares), *clean.shape[1:]), generator=chance)
        # left and right share timestep and noise: they differ in nothing but the word and the course
        timesteps = torch.cat([drawn[:SLIDING_AT_ONCE], drawn])
        noise = torch.cat([noises[:SLIDING_AT_ONCE], noises])
        noisy, velocity = diffuse(clean, noise, self.alphas[timesteps])
        states = self.text(tokens)[0].repeat_interleave(len(frames), dim=0)
        with showing(self.unet, frames):
            predicted = self.unet(noisy, timesteps, states, return_dict=False)[0]
        error: Tensor = (predicted - velocity).square().mean()
        return error

    def export(self, folder: Path) -> None:
        """Writes the adapter in diffusers layout and the text encoder with the word in it, float16."""
        self.word.write_back()
        self.text.half().save_pretrained(folder / "text_encoder")
        weights = {name: value for name, value in self.unet.state_dict().items() if ".motion_modules." in name}
        self.adapter.load_state_dict(weights)
        self.adapter.half().save_pretrained(folder / "motion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--base", type=Path, default=Path("npo_core/emoji"), help="with its motion adapter")
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--export", type=Path, required=True, help="write motion and text_encoder here")
    arguments = parser.parse_args()
    art = load_art(arguments.art, "cpu")
    pipeline: Any = StableDiffusionPipeline.from_pretrained(arguments.base, dtype=torch.float32)
    pipeline.text_encoder.requires_grad_(False)
    adapter: Any = MotionAdapter.from_pretrained(arguments.base / "motion", torch_dtype=torch.float32)
    slides, others = draw_slides(art, pipeline, SLIDING), draw_others(art, pipeline, OTHERS)
    word = MotionWords(pipeline.text_encoder, pipeline.tokenizer, ["left"])
    trainer = SlidesTrainer(pipeline, adapter, word, slides, others)
    run = trainer.run(arguments.work / "slides.pt", arguments.steps)
    if not run.file.exists():
        teach_word(pipeline, word, slides[0].latents.transpose(1, 2).flatten(0, 1))
    run.resume()
    run.to_the_end(trainer.step, 2 * SLIDING_AT_ONCE + OTHERS_AT_ONCE, every=10)
    run.take_average()
    trainer.export(arguments.export)


if __name__ == "__main__":
    main()
