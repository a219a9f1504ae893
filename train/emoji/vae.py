"""Train the emoji family's autoencoder.

    python -m train.emoji.vae --steps 6000 --export npo_core/emoji        # resumes where it stopped

Views are drawn while it trains. Pixels, edges and squares are compared; the pull towards a normal prior is slight.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from train.emoji.drawing.art import load_art
from train.emoji.drawing.render import render
from train.emoji.drawing.views import CLEAN, draw_views
from train.emoji.networks import LATENT_SIDE, build_vae
from train.emoji.training import Batch, Run, native_precision

PRIOR_WEIGHT = 1e-6
EMA_DECAY = 0.998
MEASURED_VIEWS = 256
DRAWN_AT_ONCE = 256


def reconstruction_loss(drawn: Tensor, image: Tensor) -> Tensor:
    """L1, plus L1 of neighbouring differences (edges), plus squared error."""
    edges = sum(functional.l1_loss(drawn.diff(dim=side), image.diff(dim=side)) for side in (2, 3))
    return functional.l1_loss(drawn, image) + edges + functional.mse_loss(drawn, image)


class VaeTrainer:
    """The autoencoder and how to train it one step further."""

    def __init__(self, art: Tensor, work: Path, steps: int, batch_size: int, peak_rate: float, compiled: bool) -> None:
        self.art, self.batch_size = art, batch_size
        torch.manual_seed(0)
        self.vae = cast(Any, build_vae())
        self.vae.to(device=art.device, memory_format=torch.channels_last)
        self.run = Run(list(self.vae.parameters()), work / "vae.pt", steps, peak_rate, EMA_DECAY)
        self._group, self._drawn = -1, torch.empty(0)
        self.forward = torch.compile(self._forward) if compiled else self._forward

    def batch(self, number: int) -> Batch:
        """The pictures of step `number` in [-1, 1], and the noise that their latents are drawn with."""
        group, part = divmod(number, max(1, DRAWN_AT_ONCE // self.batch_size))
        if group != self._group:
            self._group, self._drawn = group, self._draw(group)
        image = self._drawn[part * self.batch_size : (part + 1) * self.batch_size]
        chance = torch.Generator(self.art.device).manual_seed(number)
        shape = (len(image), self.vae.config.latent_channels, LATENT_SIDE, LATENT_SIDE)
        return image, torch.randn(shape, device=self.art.device, generator=chance)

    def _draw(self, group: int) -> Tensor:
        """Pictures for several steps: a few at a time, their drawing would take longer than the step."""
        rng = np.random.default_rng((11, group))
        views = draw_views(rng.integers(len(self.art), size=max(DRAWN_AT_ONCE, self.batch_size)), rng)
        return (2 * render(self.art, views) - 1).contiguous(memory_format=torch.channels_last)

    def loss(self, image: Tensor, noise: Tensor) -> Tensor:
        """What is lost on the way through the latents, plus the slight prior."""
        with native_precision(self.art.device):
            return self.forward(image, noise)

    def _forward(self, image: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = self.vae.encoder(image).float().chunk(2, 1)
        log_variance = log_variance.clamp(-30, 20)
        drawn = self.vae.decoder(mean + (0.5 * log_variance).exp() * noise).float()
        prior = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
        return reconstruction_loss(drawn, image) + PRIOR_WEIGHT * prior

    @torch.no_grad()
    def finish(self, measured_views: int = MEASURED_VIEWS) -> dict[str, float]:
        """Takes the averaged weights, sets the scale at which latents have mean square 1, and measures."""
        self.run.take_average()
        views = draw_views(np.arange(measured_views) % len(self.art), np.random.default_rng(12))
        images = 2 * render(self.art, views) - 1
        latents = torch.cat([encode(self.vae, part) for part in images.split(64)])
        self.vae.register_to_config(scaling_factor=float(latents.square().mean().rsqrt()))
        drawn = torch.cat([self.vae.decode(part).sample.clamp(-1, 1) for part in latents.split(64)])
        clean = torch.from_numpy(views.flaw == CLEAN)
        return {
            "scaling_factor": round(self.vae.config.scaling_factor, 4),
            "psnr_db": round(decibels(drawn, images), 2),
            "psnr_db_clean_views": round(decibels(drawn[clean], images[clean]), 2),
            "sharpness_clean_views": round(edges_of(drawn[clean]) / edges_of(images[clean]), 3),
        }


def decibels(drawn: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / functional.mse_loss(drawn, images)))


def edges_of(images: Tensor) -> float:
    """Mean absolute difference of neighbouring pixels."""
    return float(images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean())


def encode(vae: Any, images: Tensor) -> Tensor:
    """(N, 3, H, W) in [-1, 1] -> the means of their latents, (N, 16, H/16, W/16), before `scaling_factor`."""
    mean: Tensor = vae.encode(images).latent_dist.mean
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="faster on a GPU after a minute of compiling")
    parser.add_argument("--export", type=Path, help="write the autoencoder here (diffusers layout, float16)")
    arguments = parser.parse_args()
    art = load_art(arguments.art, arguments.device)
    trainer = VaeTrainer(
        art, arguments.work, arguments.steps, arguments.batch_size, arguments.learning_rate, arguments.compile
    )
    trainer.run.resume()
    trainer.run.to_the_end(trainer.batch, trainer.loss, arguments.batch_size)
    print(trainer.finish(), flush=True)
    if arguments.export:
        trainer.vae.half().save_pretrained(arguments.export / "vae")


if __name__ == "__main__":
    main()
