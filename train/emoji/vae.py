"""Build and train the emoji family's autoencoder.

    python -m train.emoji.vae --data data/emoji --work data/emoji/vae --steps 3000        # resumes where it stopped

The encoder is not trained: its convolutions are the patch basis of latents.py. The decoder starts as that basis's
least-squares way back, and learns to draw crisp edges where the basis alone is soft.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from npo_core.emoji.autoencoder import PatchAutoencoder
from train.emoji.latents import CHANNELS, INNER_CHANNELS, INNER_PX, PATCH_PX, LatentBasis, encode_folder

LATENT_NOISE = 0.08  # sampled latents are never exact; the decoder should not mind


def build_vae(basis: LatentBasis) -> PatchAutoencoder:
    """An autoencoder that computes `basis` exactly, one way and back, before any training."""
    vae = PatchAutoencoder(latent_channels=CHANNELS, inner_channels=INNER_CHANNELS)
    inner = basis.inner.reshape(INNER_PX, INNER_PX, 3, INNER_CHANNELS).transpose(3, 2, 0, 1)
    outer = basis.outer.reshape(2, 2, INNER_CHANNELS, CHANNELS).transpose(3, 2, 0, 1)
    back = basis.back.reshape(CHANNELS, PATCH_PX, PATCH_PX, 3).transpose(3, 1, 2, 0)  # pixel shuffle: colour first
    with torch.no_grad():
        vae.encoder.inner.weight.copy_(torch.from_numpy(np.ascontiguousarray(inner)))
        vae.encoder.outer.weight.copy_(torch.from_numpy(np.ascontiguousarray(outer)))
        vae.encoder.outer.bias.copy_(torch.from_numpy(-basis.mean))
        vae.decoder.back.weight.copy_(torch.from_numpy(np.ascontiguousarray(back)).reshape(-1, CHANNELS, 1, 1))
        vae.decoder.back.bias.copy_(vae.decoder.back.weight[:, :, 0, 0] @ torch.from_numpy(basis.mean))
    return vae


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def reconstruction_loss(drawn: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """L1, plus L1 of neighbouring differences (edges), plus squared error."""
    edges = functional.l1_loss(drawn.diff(dim=2), image.diff(dim=2)) + functional.l1_loss(
        drawn.diff(dim=3), image.diff(dim=3)
    )
    return functional.l1_loss(drawn, image) + edges + functional.mse_loss(drawn, image)


def psnr_db(vae: Any, latents: np.ndarray, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio of the decoder, in dB."""
    with torch.no_grad():
        drawn = vae.decode(torch.from_numpy(latents).float()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / functional.mse_loss(drawn, to_tensor(images))))


class DecoderTrainer:
    """The autoencoder, its optimizer and how far they are; `step()` depends on nothing else."""

    def __init__(self, data: Path, run: Path, steps: int, batch_size: int, peak_rate: float, device: str) -> None:
        basis, self.latents = encode_folder(data)
        self.images = np.load(data / "images.npy", mmap_mode="r")
        self.held = np.arange(0, len(self.latents), max(25, len(self.latents) // 96))  # measured on, never trained on
        self.rest = np.setdiff1d(np.arange(len(self.latents)), self.held)
        self.run, self.steps, self.batch_size, self.peak_rate, self.device = run, steps, batch_size, peak_rate, device
        torch.manual_seed(0)
        self.vae: Any = build_vae(basis).to(device, memory_format=torch.channels_last)
        self.decoder = self.vae.decoder
        self.optimizer = torch.optim.AdamW(self.decoder.parameters(), lr=peak_rate, betas=(0.9, 0.98), fused=True)
        self.done = 0

    def checkpoint(self) -> None:
        state = {"decoder": self.decoder.state_dict(), "optimizer": self.optimizer.state_dict(), "done": self.done}
        self.run.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.run / "state.tmp")
        (self.run / "state.tmp").replace(self.run / "state.pt")

    def resume(self) -> None:
        if (self.run / "state.pt").exists():
            state = torch.load(self.run / "state.pt", map_location=self.device, weights_only=True)
            self.decoder.load_state_dict(state["decoder"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.done = state["done"]

    def step(self) -> float:
        rng = np.random.default_rng((11, self.done))
        rows = np.sort(rng.choice(self.rest, self.batch_size, replace=False))
        rate = min(1, (self.done + 1) / 100) * 0.5 * (1 + math.cos(math.pi * self.done / self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_rate * rate
        noisy = torch.from_numpy(self.latents[rows]).float()
        noisy += LATENT_NOISE * rng.random() * torch.from_numpy(rng.standard_normal(noisy.shape, np.float32))
        with torch.autocast(self.device, torch.bfloat16):
            drawn = self.decoder(noisy.to(self.device, memory_format=torch.channels_last))
        loss = reconstruction_loss(drawn.float(), to_tensor(self.images[rows]).to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return float(loss.detach())

    def quality_db(self) -> float:
        return psnr_db(self.vae, self.latents[self.held], self.images[self.held])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--work", dest="run", type=Path, default=Path("data/emoji/vae"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="write the autoencoder here (diffusers layout, float16)")
    arguments = parser.parse_args()
    trainer = DecoderTrainer(
        arguments.data, arguments.run, arguments.steps, arguments.batch_size, arguments.learning_rate, arguments.device
    )
    trainer.resume()
    print(f"step {trainer.done}: {trainer.quality_db():.2f} dB", flush=True)
    started = time.perf_counter()
    while trainer.done < trainer.steps:
        loss = trainer.step()
        if trainer.done % 100 == 0 or trainer.done == trainer.steps:
            rate = 100 * trainer.batch_size / (time.perf_counter() - started)
            print(
                f"step {trainer.done}/{trainer.steps} loss {loss:.4f} {trainer.quality_db():.2f} dB {rate:.0f}/s",
                flush=True,
            )
            trainer.checkpoint()
            started = time.perf_counter()
    if arguments.export:
        trainer.vae.half().save_pretrained(arguments.export / "vae")


if __name__ == "__main__":
    main()
