"""Train the judge of emoji pictures on the labelled views.

    python -m train.emoji.scorer --data data/emoji --out npo_core/emoji/scorer.safetensors      # about 6 minutes

Half of each batch has gone through the latent basis and back, with a little noise, so that the judge does not mind
what an autoencoder does to a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from npo_core.emoji.scorer import ScorerNet
from train.emoji.concepts import BACKGROUNDS, COLOURS, STYLES, concepts
from train.emoji.data import load_views
from train.emoji.latents import LatentBasis, encode_folder

LABELS = {
    "concepts": list(concepts()),
    "styles": list(STYLES),
    "backgrounds": list(BACKGROUNDS),
    "colours": ["own", *COLOURS],
}
SIZES = [len(words) for words in LABELS.values()]


def load_batch(
    rows: np.ndarray, images: np.ndarray, latents: np.ndarray, basis: LatentBasis, rng: np.random.Generator
) -> torch.Tensor:
    """(B, 3, 64, 64) in [-1, 1]; every second picture has been through the basis."""
    batch = np.array(images[rows])
    noisy = latents[rows[::2]].astype(np.float32)
    batch[::2] = basis.decode(noisy + 0.15 * rng.random() * rng.standard_normal(noisy.shape, np.float32))
    return functional.avg_pool2d(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1, 2)


def loss_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropies of the four named answers and of clean. targets: (B, 5) int64."""
    *named, clean = logits.split([*SIZES, 1], 1)
    loss = functional.binary_cross_entropy_with_logits(clean[:, 0], targets[:, 4].float())
    for answer, truth in zip(named, targets.T, strict=False):
        loss = loss + functional.cross_entropy(answer, truth, label_smoothing=0.02)
    return loss


def read_targets(data: Path) -> torch.Tensor:
    """(N, 5) int64: concept, style, background, colour (0 its own), clean."""
    views = load_views(data)
    return torch.tensor([[v.concept, v.style, v.background, v.colour + 1, int(not v.flaw)] for v in views])


def measure(logits: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
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


def train(data: Path, steps: int, batch_size: int) -> tuple[ScorerNet, dict[str, float]]:
    """Train, and measure on views that were held out."""
    basis, latents = encode_folder(data)
    images, targets = np.load(data / "images.npy", mmap_mode="r"), read_targets(data)
    held = np.arange(0, len(targets), 25)
    rest = np.setdiff1d(np.arange(len(targets)), held)
    torch.manual_seed(0)
    net = ScorerNet(sum(SIZES) + 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rng = np.random.default_rng((13, step))
        rows = np.sort(rng.choice(rest, batch_size, replace=False))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(load_batch(rows, images, latents, basis, rng))
        loss = loss_of(logits.float(), targets[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {float(loss.detach()):.3f}", flush=True)
    net.eval()
    rng = np.random.default_rng(1)
    parts = np.array_split(held, max(1, len(held) // 128))
    with torch.no_grad():
        logits = torch.cat([net(load_batch(part, images, latents, basis, rng)) for part in parts])
    return net, measure(logits, targets[held])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("npo_core/emoji/scorer.safetensors"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    net, metrics = train(arguments.data, arguments.steps, arguments.batch_size)
    print(json.dumps(metrics, indent=1))
    state = {name: value.half().contiguous() for name, value in net.state_dict().items() if value.is_floating_point()}
    save_file(state, arguments.out, {"labels": json.dumps(LABELS), "metrics": json.dumps(metrics)})


if __name__ == "__main__":
    main()
