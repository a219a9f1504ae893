"""Train the jury of emoji pictures: what is shown, whether it is clean, and which flaw it has.

    python -m train.emoji.jury --art data/emoji/art.npz --more-art data/emoji/art_jury.npz --steps 5000 \
        --export train/judging                                                # resumes; minutes on one H200

Nothing here is the rater's (train/emoji/scorer.py): another architecture, other seeds, pictures nudged, resized and
slightly re-coloured, a third of them drawn from art that neither the pictures nor the rater were trained on (Twemoji,
CC-BY 4.0). With --vae a part of each batch has been through the autoencoder, so that the jury does not take for a flaw
what every picture of the family has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from train.emoji.drawing.art import load_art
from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, GROUNDS, STYLES
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.render import render
from train.emoji.drawing.views import CLEAN, CONCEPT_NAMES, Views, draw_views
from train.emoji.training import Batch, Run, native_precision
from train.emoji.vae import encode
from train.judging.jury import SIDE_PX, WORDS, JuryNet, to_side

PEAK_RATE, EMA_DECAY = 2e-3, 0.998
SEED = 71  # the rater's are 0, 1 and 13
FROM_MORE_ART = 1 / 3
THROUGH_VAE = 1 / 4
MEASURED_VIEWS = 2048
SETTLING, MEASURING, DRAWING = 2**32, 2**33, 2**34  # beyond the numbers of steps
STEPS_PER_DRAWING, POOL = 4, 8
SETTLING_BATCHES = 16


class JuryTrainer:
    """The network, its art, and how to train one step further. Every batch is a function of the step's number."""

    def __init__(self, art: Tensor, more_art: Tensor | None, vae: Any, work: Path, steps: int, batch_size: int) -> None:
        """more_art: one picture a concept, in their order; None for none, as of `vae`."""
        self.art, self.vae, self.batch_size = art, vae, batch_size
        self.more_art = None if more_art is None else more_art.repeat_interleave(len(STYLES), 0)
        torch.manual_seed(SEED)
        self.net = JuryNet(len(CONCEPT_NAMES) + 1 + len(FLAW_NAMES)).to(art.device)
        with torch.no_grad():
            self.net.head.bias[: len(CONCEPT_NAMES)] = -float(np.log(len(CONCEPT_NAMES)))  # one thing among so many
        self._drawings: dict[int, Batch] = {}
        self._pooled: Batch = ()
        self.run = Run(list(self.net.parameters()), work / "jury.pt", steps, PEAK_RATE, EMA_DECAY)

    def batch(self, number: int) -> Batch:
        """The pictures of step `number` and what they show."""
        images, targets = self._pool(number // STEPS_PER_DRAWING)
        rng = np.random.default_rng((SEED, number))
        rows = torch.from_numpy(rng.permutation(len(images))[: self.batch_size]).to(images.device)
        return to_side(augmented(images[rows].float() / 255, rng)), targets[rows]

    def _pool(self, newest: int) -> Batch:
        """The pictures of the last POOL drawings, (N, 3, H, W) uint8, and what they show: to draw a picture takes ten
        times as long as to learn from it, so each is learned from a few times, differently augmented and in other
        company."""
        wanted = range(max(0, newest + 1 - POOL), newest + 1)
        if wanted[-1] not in self._drawings:
            self._drawings = {number: self._drawings.get(number) or self._drawing(number) for number in wanted}
            self._pooled = tuple(torch.cat(parts) for parts in zip(*self._drawings.values(), strict=True))
        return self._pooled

    def _drawing(self, number: int) -> Batch:
        rng = np.random.default_rng((SEED, DRAWING, number))
        views = draw_views(rng.integers(len(self.art), size=self.batch_size), rng)
        images = (255 * self.draw(views, round(FROM_MORE_ART * len(views)))).round().byte()
        return images, targets_of(views).to(images.device)

    def loss(self, pixels: Tensor, targets: Tensor) -> Tensor:
        """How far the answers are from the truth."""
        with native_precision(self.art.device):
            logits = self.net(pixels)
        return loss_of(logits.float(), targets)

    @torch.no_grad()
    def draw(self, views: Views, others: int) -> Tensor:
        """(N, 3, H, W) in [0, 1]; the first `others` of the other art, and some of all through the autoencoder."""
        shares = ((self.more_art, views[:others]), (self.art, views[others:])) if self.more_art is not None else ()
        images = torch.cat([render(art, part) for art, part in shares or ((self.art, views),) if len(part)])
        if self.vae is not None:
            every = round(1 / THROUGH_VAE)
            with native_precision(images.device):
                latents = encode(self.vae, 2 * images[::every] - 1)
                images[::every] = (self.vae.decode(latents).sample.float() / 2 + 0.5).clamp(0, 1)
        return images

    @torch.no_grad()
    def settle(self) -> None:
        """Gives the averaged weights the statistics that their normalisations see, and leaves training."""
        norms = [module for module in self.net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
        for number in range(SETTLING_BATCHES):
            rng = np.random.default_rng((SEED, SETTLING, number))
            views = draw_views(rng.integers(len(self.art), size=self.batch_size), rng)
            self.net(to_side(augmented(self.draw(views, round(FROM_MORE_ART * len(views))), rng)))
        self.net.eval()

    @torch.no_grad()
    def measure(self, views_count: int = MEASURED_VIEWS) -> dict[str, float]:
        """On fresh views, of the art and of the other art apart."""
        found: dict[str, float] = {}
        for name, others in (("art", 0), ("more art", views_count)):
            if others and self.more_art is None:
                continue
            rng = np.random.default_rng((SEED, MEASURING, others))
            logits, targets = [], []
            for pictures in np.array_split(rng.integers(len(self.art), size=views_count), -(-views_count // 64)):
                views = draw_views(pictures, rng)
                logits.append(self.net(to_side(self.draw(views, min(others, len(views))))).float().cpu())
                targets.append(targets_of(views))
            found |= {f"{key}, {name}": value for key, value in score(torch.cat(logits), torch.cat(targets)).items()}
        return found

    def export(self, folder: Path, measured_views: int = MEASURED_VIEWS) -> dict[str, float]:
        """Writes folder/jury.safetensors, float16, with labels and measured accuracies in its header."""
        self.run.take_average()
        self.settle()
        metrics = self.measure(measured_views)
        words: tuple[Iterable[str], ...] = (CONCEPT_NAMES, STYLES, BACKGROUNDS, COLOURS, GROUNDS)
        labels = {name: list(ours) for name, ours in zip(WORDS, words, strict=True)}
        state = {
            name: value.detach().half().contiguous().cpu()
            for name, value in self.net.state_dict().items()
            if value.is_floating_point()
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            state,
            folder / "jury.safetensors",
            {"labels": json.dumps({**labels, "flaws": FLAW_NAMES}), "metrics": json.dumps(metrics)},
        )
        return metrics


def targets_of(views: Views) -> Tensor:
    """(N, K + 1 + F) float32, 0 or 1: the things shown, clean, the flaw."""
    targets = np.zeros((len(views), len(CONCEPT_NAMES) + 1 + len(FLAW_NAMES)), np.float32)
    rows, slots = np.nonzero(views.concept >= 0)
    targets[rows, views.concept[rows, slots]] = 1
    targets[:, len(CONCEPT_NAMES)] = views.flaw == CLEAN
    spoiled = np.flatnonzero(views.flaw != CLEAN)
    targets[spoiled, len(CONCEPT_NAMES) + 1 + views.flaw[spoiled]] = 1
    return torch.from_numpy(targets)


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropies, each answer on its own, summed over things and over flaws; and that of choosing among the
    things, which finds the way sooner where only one or two of so many are there. Averaged over pictures."""
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    shown = targets[:, : len(CONCEPT_NAMES)]
    return losses + functional.cross_entropy(logits[:, : len(CONCEPT_NAMES)], shown / shown.sum(1, keepdim=True))


def score(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Top-1 of the thing on clean and on spoiled views, accuracy of clean, and recall and false alarms of each flaw."""
    things = len(CONCEPT_NAMES)
    clean = targets[:, things] == 1
    right = targets[torch.arange(len(targets)), logits[:, :things].argmax(1)]
    found = {
        "top-1, clean views": float(right[clean].mean()),
        "top-1, spoiled views": float(right[~clean].mean()),
        "clean accuracy": float(((logits[:, things] > 0) == clean).float().mean()),
    }
    for place, name in enumerate(FLAW_NAMES, things + 1):
        seen, there = logits[:, place] > 0, targets[:, place] == 1
        found[f"{name} seen"] = float(seen[there].float().mean())
        found[f"{name} on clean views"] = float(seen[clean].float().mean())
    return {key: round(value, 4) for key, value in found.items() if value == value}  # not of what was not drawn


def augmented(images: Tensor, rng: np.random.Generator) -> Tensor:
    """What may happen to a picture without an answer about it being wrong: mirrored, nudged, a shade lighter or darker,
    a little softer by another resolution, a trace of noise. images: (N, 3, H, W) in [0, 1]."""
    count, device = len(images), images.device

    def drawn(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, count)).float().to(device)

    mirrored = torch.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    size, zero = drawn(0.95, 1.05), torch.zeros(count, device=device)
    affine = torch.stack([mirrored * size, zero, drawn(-0.05, 0.05), zero, size, drawn(-0.05, 0.05)], 1).view(-1, 2, 3)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    small = round(SIDE_PX * rng.uniform(0.6, 1))
    softer = functional.interpolate(images, (small, small), mode="bilinear", antialias=True)
    softer = functional.interpolate(softer, images.shape[-2:], mode="bilinear", antialias=True)
    images = torch.where(drawn(0, 1).view(-1, 1, 1, 1) < 0.3, softer, images)
    contrast, light = drawn(0.95, 1.05).view(-1, 1, 1, 1), drawn(-0.03, 0.03).view(-1, 1, 1, 1)
    chance = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
    noise = torch.randn(images.shape, device=device, generator=chance) * drawn(0, 0.01).view(-1, 1, 1, 1)
    return ((images - 0.5) * contrast + 0.5 + light + noise).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--more-art", type=Path, help="art of other vendors, one picture a concept")
    parser.add_argument("--vae", type=Path, help="an autoencoder that some of the pictures go through")
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=192)
    parser.add_argument("--measured-views", type=int, default=MEASURED_VIEWS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="folder for jury.safetensors (train/judging is where it is used)")
    arguments = parser.parse_args()
    vae: Any = None
    if arguments.vae:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(arguments.vae).to(arguments.device)
    trainer = JuryTrainer(
        load_art(arguments.art, arguments.device),
        load_art(arguments.more_art, arguments.device) if arguments.more_art else None,
        vae,
        arguments.work,
        arguments.steps,
        arguments.batch_size,
    )
    trainer.run.resume()
    trainer.run.to_the_end(trainer.batch, trainer.loss, arguments.batch_size)
    if arguments.export:
        print(json.dumps(trainer.export(arguments.export, arguments.measured_views), indent=1))


if __name__ == "__main__":
    main()
