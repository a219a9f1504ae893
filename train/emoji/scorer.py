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
    parts = logits.split([*SIZES, 1], 1)
    named = sum(functional.cross_entropy(part, targets[:, i], label_smoothing=0.02) for i, part in enumerate(parts[:-1]))
    return named + functional.binary_cross_entropy_with_logits(parts[-1][:, 0], targets[:, 4].float())


def train(data: Path, steps: int, batch_size: int) -> tuple[ScorerNet, dict[str, float]]:
    """Train, and measure on views that were held out."""
    basis, latents = encode_folder(data)
    images, views = np.load(data / "images.npy", mmap_mode="r"), load_views(data)
    targets = torch.tensor([[v.concept, v.style, v.background, v.colour + 1, int(not v.flaw)] for v in views])
    held = np.arange(0, len(views), 25)
    rest = np.setdiff1d(np.arange(len(views)), held)
    torch.manual_seed(0)
    net = ScorerNet(sum(SIZES) + 1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rng = np.random.default_rng((13, step))
        rows = np.sort(rng.choice(rest, batch_size, replace=False))
        pixels = load_batch(rows, images, latents, basis, rng).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(pixels)
        loss = loss_of(logits.float(), targets[rows])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}/{steps} loss {float(loss.detach()):.3f}", flush=True)
    net.eval()
    rng = np.random.default_rng(1)
    with torch.no_grad():
        logits = torch.cat([net(load_batch(held[i : i + 128], images, latents, basis, rng)) for i in range(0, len(held), 128)])
    parts, truth = logits.split([*SIZES, 1], 1), targets[held]
    clean = truth[:, 4] == 1
    correct = {name: (parts[i].argmax(1) == truth[:, i]) for i, name in enumerate(LABELS)}
    metrics = {f"{name} accuracy, clean views": round(float(hit[clean].float().mean()), 4) for name, hit in correct.items()}
    metrics["concepts accuracy, spoiled views"] = round(float(correct["concepts"][~clean].float().mean()), 4)
    metrics["clean accuracy"] = round(float(((parts[-1][:, 0] > 0) == clean).float().mean()), 4)
    return net, metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--out", type=Path, default=Path("npo_core/emoji/scorer.safetensors"))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch-size", type=int, default=96)
    arguments = parser.parse_args()
    net, metrics = train(arguments.data, arguments.steps, arguments.batch_size)
    print(json.dumps(metrics, indent=1))
    state = {name: value.half().contiguous() for name, value in net.state_dict().items() if value.is_floating_point()}
    save_file(state, arguments.out, {"labels": json.dumps(LABELS), "metrics": json.dumps(metrics)})


if __name__ == "__main__":
    main()
