"""Train the emoji family's motion adapter on procedurally animated clips; the base stays as it is.

    python -m train.emoji.motion --steps 8000 --export npo_core/emoji            # resumes where it stopped

AnimateDiff (arXiv 2307.04725): temporal attention between the layers of the frozen UNet for pictures. The clips are
drawn from the same art as the pictures, one of the motions of motions.py each, and their latents are computed once.
Every batch is a function of the step's number.

The embeddings of the ten words of the motions are taught first (words.py) and learned along; captions without them are
read as before, bit for bit.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import MotionAdapter, StableDiffusionPipeline, UNetMotionModel
from torch import Tensor

from train.emoji.bank import encode_views, token_ids
from train.emoji.drawing.art import load_art
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.motions import FRAMES, MOTIONS, clip_times, pose_at
from train.emoji.drawing.views import (
    CLEAN,
    MOTION_NAMES,
    NO_MOTION,
    SINGLE,
    Placement,
    Views,
    captions,
    centred,
    draw_views,
    joined_placements,
    placed,
)
from train.emoji.language.words import MotionWords, teach_words
from train.emoji.training import Batch, Run, diffuse, native_precision, write_whole

SCENE_SHARE = 0.25  # of clips
STILL_SHARE = 0.1  # of clips in which nothing moves, and the caption names no motion
CAPTION_DROPOUT = 0.1
NOISY_SHARE = 0.6  # exponent on the uniform draw of a timestep: more of the noisy ones, where frames settle the course
EMA_DECAY = 0.998
HEAD_WIDTH = 32
CLIPS_AT_ONCE = 16
TAUGHT_AT_ONCE = 48


def build_motion_adapter(unet: Any) -> Any:
    """Temporal attention at every level of `unet` but the coarsest, where it sits in the middle block only: that is
    where each position sees the whole picture, and the widths there would cost half of all weights.

    It starts as the identity (its last layers at zero), so that the first step is the base's.
    """
    widths = tuple(unet.config.block_out_channels)
    adapter: Any = MotionAdapter(
        block_out_channels=widths,
        motion_layers_per_block=unet.config.layers_per_block,
        motion_transformer_layers_per_block=(*[1] * (len(widths) - 1), 0),
        motion_num_attention_heads=tuple(max(1, width // HEAD_WIDTH) for width in widths),
        motion_norm_num_groups=unet.config.norm_num_groups,
        motion_max_seq_length=2 * FRAMES,
        use_motion_mid_block=True,
    )
    for name, parameter in adapter.named_parameters():
        if ".proj_out." in name and "transformer_blocks" not in name:
            torch.nn.init.zeros_(parameter)
    return adapter


def draw_clips(picture: np.ndarray, rng: np.random.Generator) -> Views:
    """A random clip of each of the pictures (N,), as the view that its caption tells of; all things of a scene move.

    Spoiled as often as still views, though never badly cropped: a motion needs its room.
    """
    views, count = draw_views(picture, rng, SCENE_SHARE), len(picture)
    alone = (views.layout == SINGLE)[:, None]
    places = {
        name: np.where(alone, each, getattr(views.placement, name)) for name, each in vars(centred(count)).items()
    }
    return replace(
        views,
        motion=np.where(rng.random(count) < STILL_SHARE, NO_MOTION, rng.integers(len(MOTIONS), size=count)),
        flaw=np.where(views.flaw == FLAW_NAMES.index("cropped"), CLEAN, views.flaw),
        placement=Placement(**places),
    )


def frames_of(clips: Views, frames: int = FRAMES) -> Views:
    """All frames of the clips (N,), one clip after the other: (N * F,)."""
    views = clips[np.repeat(np.arange(len(clips)), frames)]
    courses = [views.placement[start : start + frames] for start in range(0, len(views), frames)]
    for row, motion in enumerate(clips.motion):
        if motion != NO_MOTION:
            courses[row] = placed(pose_at(MOTION_NAMES[motion], clip_times(frames)), at=courses[row])
    return replace(views, placement=joined_placements(courses))


@dataclass(frozen=True)
class ClipBank:
    """latents: (N, 16, F, 16, 16) float16, scaled. tokens: (N, 32) int16, of each clip's caption."""

    latents: Tensor
    tokens: Tensor


@torch.no_grad()
def build_bank(art: Tensor, pipeline: Any, clips_per_picture: int, frames: int = FRAMES) -> ClipBank:
    """`clips_per_picture` random clips of every picture, on the device of `art`."""
    rng = np.random.default_rng(4052)
    pictures = rng.permutation(np.repeat(np.arange(len(art)), clips_per_picture))
    latents, texts = [], []
    for start in range(0, len(pictures), CLIPS_AT_ONCE):
        clips = draw_clips(pictures[start : start + CLIPS_AT_ONCE], rng)
        encoded = encode_views(art, pipeline.vae, frames_of(clips, frames))  # (n * F, 16, 16, 16)
        latents.append(encoded.unflatten(0, (-1, frames)).transpose(1, 2))
        texts += captions(clips, rng)
    return ClipBank(torch.cat(latents), token_ids(pipeline.tokenizer, texts).to(torch.int16).to(art.device))


def load_bank(file: Path, art: Tensor, pipeline: Any, clips_per_picture: int) -> ClipBank:
    """The bank in `file`, built first where there is none."""
    if not file.exists():
        write_whole(file, vars(build_bank(art, pipeline, clips_per_picture)))
    return ClipBank(**torch.load(file, map_location=art.device, weights_only=True))


class MotionTrainer:
    """The frozen base with the adapter in it, the words, the clips, and how to train one step further."""

    def __init__(
        self,
        pipeline: Any,
        words: MotionWords,
        bank: ClipBank,
        file: Path,
        steps: int,
        batch_size: int,
        peak_rate: float,
        compiled: bool,
    ) -> None:
        self.words, self.bank, self.batch_size, self.device = words, bank, batch_size, bank.latents.device
        torch.manual_seed(0)
        self.adapter = build_motion_adapter(pipeline.unet)
        self.unet: Any = UNetMotionModel.from_unet2d(pipeline.unet, self.adapter).to(self.device)
        self.unet.freeze_unet2d_params()
        self.text = pipeline.text_encoder
        self.nothing = token_ids(pipeline.tokenizer, [""]).to(self.device)  # (1, 32)
        trained = [*(parameter for parameter in self.unet.parameters() if parameter.requires_grad), self.words.rows]
        if self.device.type == "cuda":  # autocast would cast frozen weights again in every step
            for parameter in self.unet.parameters():
                parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad else torch.bfloat16)
        self.predict = torch.compile(self.unet) if compiled else self.unet
        self.run = Run(trained, file, steps, peak_rate, EMA_DECAY)
        self.alphas = pipeline.scheduler.alphas_cumprod.to(self.device)

    def batch(self, number: int) -> Batch:
        """What step `number` learns from: latents of clips, tokens, timesteps (one for all frames) and noise."""
        chance = torch.Generator(self.device).manual_seed(number)
        uniform = torch.rand((3, self.batch_size), device=self.device, generator=chance)
        rows = (uniform[0] * len(self.bank.latents)).long()
        clean = self.bank.latents[rows].float()  # (B, 16, F, 16, 16)
        tokens = torch.where(uniform[1, :, None] < CAPTION_DROPOUT, self.nothing, self.bank.tokens[rows].long())
        spread = (torch.arange(self.batch_size, device=self.device) + uniform[2]) / self.batch_size
        timesteps = (spread**NOISY_SHARE * len(self.alphas)).long().clamp(max=len(self.alphas) - 1)
        return clean, tokens, timesteps, torch.randn(clean.shape, device=self.device, generator=chance)

    def loss(self, clean: Tensor, tokens: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the predicted v."""
        noisy, velocity = diffuse(clean, noise, self.alphas[timesteps])
        states = self.text(tokens)[0]  # in full precision: bfloat16 would round away what tells left from right
        with native_precision(self.device):
            predicted = self.predict(
                noisy,
                timesteps,
                states.repeat_interleave(clean.shape[2], dim=0),  # one for each frame
                return_dict=False,
            )[0]
        return (predicted.float() - velocity).square().mean()

    def export(self, folder: Path) -> None:
        """Writes the averaged adapter in diffusers layout and the text encoder with the words in it, float16."""
        self.run.take_average()
        self.words.write_back()
        self.text.half().save_pretrained(folder / "text_encoder")
        weights = {name: value for name, value in self.unet.state_dict().items() if ".motion_modules." in name}
        self.adapter.load_state_dict(weights)
        self.adapter.half().save_pretrained(folder / "motion")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--base", type=Path, default=Path("npo_core/emoji"))
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch-size", type=int, default=32, help="clips a step")
    parser.add_argument("--learning-rate", type=float, default=6e-4)
    parser.add_argument("--teaching-steps", type=int, default=300, help="for the words, before the adapter")
    parser.add_argument("--clips-per-picture", type=int, default=10)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="faster on a GPU after a minute of compiling")
    parser.add_argument("--export", type=Path, help="write motion and text_encoder here")
    arguments = parser.parse_args()
    art = load_art(arguments.art, arguments.device)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(arguments.base, dtype=torch.float32)
    pipeline.to(arguments.device)
    pipeline.text_encoder.requires_grad_(False)
    bank = load_bank(arguments.work / "clips.pt", art, pipeline, arguments.clips_per_picture)
    words, file = MotionWords(pipeline.text_encoder, pipeline.tokenizer), arguments.work / "motion.pt"
    if not file.exists():
        teach_words(pipeline, words, art, arguments.teaching_steps, TAUGHT_AT_ONCE)
    trainer = MotionTrainer(
        pipeline,
        words,
        bank,
        file,
        arguments.steps,
        arguments.batch_size,
        arguments.learning_rate,
        arguments.compile,
    )
    trainer.run.resume()
    trainer.run.to_the_end(trainer.batch, trainer.loss, arguments.batch_size)
    if arguments.export:
        trainer.export(arguments.export)


if __name__ == "__main__":
    main()
