"""Train the judge of emoji pictures on labelled views.

    python -m train.emoji.scorer --out npo_core/emoji/scorer.safetensors

Half of each batch has gone through the autoencoder and back, with a little noise on its latents, so that the judge does
not mind what an autoencoder does to a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from npo_core.emoji.scorer import SIDE_PX, ScorerNet
from train.emoji.art import load_art
from train.emoji.bank import encode_views
from train.emoji.concepts import BACKDROPS, COLOURS, STYLES, concepts
from train.emoji.render import SIZE_PX, render
from train.emoji.training import native_precision
from train.emoji.views import CLEAN, Views, draw_views

LABELS = {
    "concepts": list(concepts()),
    "styles": list(STYLES),
    "backgrounds": list(BACKDROPS),
    "colours": ["own", *COLOURS],
}
SIZES = [len(words) for words in LABELS.values()]
LATENT_NOISE = 0.15
MEASURED_VIEWS = 2048


@torch.no_grad()
def draw_batch(art: Tensor, vae: Any, views: Views, rng: np.random.Generator) -> Tensor:
    """(N, 3, 64, 64) in [-1, 1]; every second picture has been through the autoencoder."""
    images = 2 * render(art, views) - 1
    latents = encode_views(art, vae, views).float()[::2]
    noise = torch.from_numpy(rng.standard_normal(latents.shape, np.float32)).to(art.device)
    latents += LATENT_NOISE * rng.random() * noise
    with native_precision(art.device):
        images[::2] = vae.decode(latents / vae.config.scaling_factor).sample.float().clamp(-1, 1)
    return functional.avg_pool2d(images, SIZE_PX // SIDE_PX)


def targets_of(views: Views) -> Tensor:
    """(N, 5) int64: concept, style, background, colour (0 its own), clean."""
    columns = (views.concept[:, 0], views.style, views.background, views.colour[:, 0] + 1, views.flaw == CLEAN)
    return torch.from_numpy(np.stack(columns, 1).astype(np.int64))


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropies of the four named answers and of clean. targets: (N, 5) int64."""
    *named, clean = logits.split([*SIZES, 1], 1)
    loss = functional.binary_cross_entropy_with_logits(clean[:, 0], targets[:, 4].float())
    for answer, truth in zip(named, targets.T, strict=False):
        loss = loss + functional.cross_entropy(answer, truth, label_smoothing=0.02)
    return loss


def measure(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Accuracies, of what is shown on clean views, of concepts on spoiled ones, and of clean itself."""
    *named, clean = logits.split([*SIZES, 1], 1)
    is_clean = targets[:, 4] == 1
    metrics = {}
    for column, (name, answer) in enumerate(zip(LABELS, named, strict=True)):
        right = (answer.argmax(1) == targets[:, column]).float()
        metrics[f"{name} accuracy, clean views"] = round(float(right[is_clean].mean()), 4)
        if name == "concepts":
            metrics["concepts accuracy, spoiled views"] = round(float(right[~is_clean].mean()), 4)
    metrics["clean accuracy"] = round(float(((clean[:, 0] > 0) == is_clean).float().mean()), 4)
    return metrics


def train(
    art: Tensor, vae: Any, steps: int, batch_size: int, measured_views: int = MEASURED_VIEWS
) -> tuple[ScorerNet, dict[str, float]]:
    """Train, and measure on fresh views."""
    torch.manual_seed(0)
    net = ScorerNet(sum(SIZES) + 1).to(art.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rng = np.random.default_rng((13, step))
        views = draw_views(rng.integers(len(art), size=batch_size), rng)
        pixels, targets = draw_batch(art, vae, views, rng), targets_of(views).to(art.device)
        with native_precision(art.device):
            logits = net(pixels)
        loss = loss_of(logits.float(), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {float(loss.detach()):.3f}", flush=True)
    return net, measure_net(net.eval(), art, vae, measured_views)


@torch.no_grad()
def measure_net(net: ScorerNet, art: Tensor, vae: Any, measured_views: int) -> dict[str, float]:
    """`measure` on views that no training step drew."""
    rng = np.random.default_rng(1)
    parts = [draw_views(part, rng) for part in np.array_split(rng.integers(len(art), size=measured_views), 16)]
    logits = torch.cat([net(draw_batch(art, vae, part, rng)).float().cpu() for part in parts])
    return measure(logits, torch.cat([targets_of(part) for part in parts]))


def save(net: ScorerNet, metrics: dict[str, float], file: Path) -> None:
    """Float16 weights with the labels and the measured accuracies in the header, as `load_scorer` reads them."""
    state = {name: value.half().contiguous() for name, value in net.state_dict().items() if value.is_floating_point()}
    save_file(state, file, {"labels": json.dumps(LABELS), "metrics": json.dumps(metrics)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--vae", type=Path, default=Path("npo_core/emoji/vae"))
    parser.add_argument("--out", type=Path, default=Path("npo_core/emoji/scorer.safetensors"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    art = load_art(arguments.art, arguments.device)
    vae: Any = AutoencoderKL.from_pretrained(arguments.vae).to(arguments.device)
    net, metrics = train(art, vae, arguments.steps, arguments.batch_size)
    print(json.dumps(metrics, indent=1))
    save(net, metrics, arguments.out)


if __name__ == "__main__":
    main()
