"""Train the emoji family's base: text encoder and UNet together, on captioned latents, from nothing.

    python -m train.emoji.base --steps 8000 --export npo_core/emoji                  # resumes where it stopped

Every batch is a function of the step's number. Learning rate: warm-up, constant, then a cosine to zero; stop at any
time and go on with another --steps. v-prediction (Salimans & Ho 2022) on a cosine schedule with zero terminal SNR.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from train.emoji.bank import VIEWS_PER_PICTURE, load_bank, token_ids
from train.emoji.drawing.art import load_art
from train.emoji.networks import build_scheduler, build_text_encoder, build_tokenizer, build_unet
from train.emoji.training import Batch, Run, diffuse, native_precision

CAPTION_DROPOUT = 0.1
EMA_DECAY = 0.9995

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


class BaseTrainer:
    """The networks, the latents, and how to train one step further."""

    def __init__(
        self,
        art: Tensor,
        vae: Any,
        work: Path,
        steps: int,
        batch_size: int,
        peak_rate: float,
        views_per_picture: int,
        compiled: bool,
    ) -> None:
        self.device, self.batch_size = art.device, batch_size
        self.tokenizer = build_tokenizer(work / "tokenizer")
        self.bank = load_bank(work, art, vae, self.tokenizer, views_per_picture)
        self.nothing = token_ids(self.tokenizer, [""]).to(self.device)  # (1, 32)
        torch.manual_seed(0)
        self.unet = cast(Any, build_unet())
        self.text = cast(Any, build_text_encoder(self.tokenizer))
        self.unet.to(device=self.device, memory_format=torch.channels_last)
        self.text.to(self.device)
        self.predict = torch.compile(self.unet) if compiled else self.unet
        self.run = Run(
            [*self.unet.parameters(), *self.text.parameters()], work / "base.pt", steps, peak_rate, EMA_DECAY
        )
        self.alphas = build_scheduler().alphas_cumprod.to(self.device)

    def batch(self, number: int) -> Batch:
        """What step `number` learns from: latents, tokens, timesteps and noise."""
        chance = torch.Generator(self.device).manual_seed(number)
        uniform = torch.rand((3, self.batch_size), device=self.device, generator=chance)
        rows = (uniform[0] * len(self.bank.latents)).long()
        clean = self.bank.latents[rows].float()  # (B, 16, 16, 16)
        tokens = torch.where(uniform[1, :, None] < CAPTION_DROPOUT, self.nothing, self.bank.tokens[rows].long())
        # evenly spread timesteps, one from each B-th of the range, so that batches are alike
        spread = (torch.arange(self.batch_size, device=self.device) + uniform[2]) / self.batch_size
        timesteps = (spread * len(self.alphas)).long()
        return clean, tokens, timesteps, torch.randn(clean.shape, device=self.device, generator=chance)

    def loss(self, clean: Tensor, tokens: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the predicted v."""
        noisy, velocity = diffuse(clean, noise, self.alphas[timesteps])
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        with native_precision(self.device):
            states = self.text(tokens)[0]
            predicted = self.predict(noisy, timesteps, states, return_dict=False)[0]
        return (predicted.float() - velocity).square().mean()

    def export(self, folder: Path) -> None:
        """Write the averaged UNet and text encoder, tokenizer, scheduler and index in diffusers layout, float16.

        With the autoencoder beside them, that is a pipeline; it is loaded once, so that a missing part is noticed here.
        """
        self.run.take_average()
        self.unet.half().save_pretrained(folder / "unet")
        self.text.half().save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        build_scheduler().save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
        diffusers.StableDiffusionPipeline.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--vae", type=Path, default=Path("npo_core/emoji/vae"))
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=11_700, help="6 million views at 512 a step (11,700)")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--views-per-picture", type=int, default=VIEWS_PER_PICTURE)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="faster on a GPU after a minute of compiling")
    parser.add_argument("--export", type=Path, help="write the averaged weights here (diffusers layout, float16)")
    arguments = parser.parse_args()
    trainer = BaseTrainer(
        load_art(arguments.art, arguments.device),
        AutoencoderKL.from_pretrained(arguments.vae).to(arguments.device),
        arguments.work,
        arguments.steps,
        arguments.batch_size,
        arguments.learning_rate,
        arguments.views_per_picture,
        arguments.compile,
    )
    trainer.run.resume()
    trainer.run.to_the_end(trainer.batch, trainer.loss, arguments.batch_size)
    if arguments.export:
        trainer.export(arguments.export)


if __name__ == "__main__":
    main()
