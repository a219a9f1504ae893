"""The emoji family's latent space: a 16x16-patch principal component analysis, in closed form.

128 px pictures become 8x8 latents of 32 channels. The basis is nested (8x8 patches first, then 2x2 groups of them), so
that the convolutions of a stock AutoencoderKL encoder can carry it exactly (vae.py builds that encoder). Channels keep
a part of their natural spread (`WHITENING`), so that the diffusion model settles coarse shapes before fine detail.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

PATCH_PX = 16
INNER_PX = 8
INNER_CHANNELS = 128
CHANNELS = 32
WHITENING = 0.6  # 0 keeps each component's own spread, 1 gives all the same


@dataclass(frozen=True)
class LatentBasis:
    """inner: (8*8*3, 128) of an 8x8 patch in (row, column, colour) order, pictures in [-1, 1].
    outer: (2*2*128, 32) of a 2x2 group in (row, column, channel) order, scaled so that latents have mean square 1.
    mean: (32,) subtracted last. back: (32, 16*16*3) the least-squares way back to a 16x16 patch."""

    inner: np.ndarray
    outer: np.ndarray
    mean: np.ndarray
    back: np.ndarray

    def encode(self, images: np.ndarray) -> np.ndarray:
        """(B, 128, 128, 3) uint8 -> (B, 32, 8, 8) float32 latents."""
        inner = _patches(_to_unit(images), INNER_PX) @ self.inner  # (B, 16, 16, 128)
        latents = _patches(inner, 2) @ self.outer - self.mean  # (B, 8, 8, 32)
        return np.ascontiguousarray(latents.transpose(0, 3, 1, 2), np.float32)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """(B, 32, 8, 8) -> (B, 128, 128, 3) uint8, linear and therefore soft; the trained decoder is sharper."""
        patches = (latents.transpose(0, 2, 3, 1) + self.mean) @ self.back  # (B, 8, 8, 768)
        batch, rows, columns, _ = patches.shape
        grid = patches.reshape(batch, rows, columns, PATCH_PX, PATCH_PX, 3).transpose(0, 1, 3, 2, 4, 5)
        images = grid.reshape(batch, rows * PATCH_PX, columns * PATCH_PX, 3)
        return np.clip((images + 1) * 127.5, 0, 255).astype(np.uint8)

    def save(self, path: Path) -> None:
        np.savez(path, inner=self.inner, outer=self.outer, mean=self.mean, back=self.back)

    @classmethod
    def load(cls, path: Path) -> LatentBasis:
        with np.load(path) as arrays:
            return cls(**{name: arrays[name] for name in ("inner", "outer", "mean", "back")})


def fit_basis(images: np.ndarray) -> LatentBasis:
    """Fit on (N, 128, 128, 3) uint8 pictures; a few thousand are enough."""
    unit = _to_unit(images)
    inner, _ = _components(_patches(unit, INNER_PX).reshape(-1, INNER_PX**2 * 3), INNER_CHANNELS)
    groups = _patches(_patches(unit, INNER_PX) @ inner, 2).reshape(-1, 4 * INNER_CHANNELS)
    outer, spread = _components(groups, CHANNELS)
    scale = spread**-WHITENING
    scale /= np.sqrt(np.mean((spread * scale) ** 2))
    outer = outer * scale
    coded = groups @ outer
    mean = coded.mean(0)
    pixels = _patches(unit, PATCH_PX).reshape(-1, PATCH_PX**2 * 3)
    back = np.linalg.lstsq(coded.T @ coded, coded.T @ pixels, rcond=None)[0]
    return LatentBasis(*(array.astype(np.float32) for array in (inner, outer, mean, back)))


def _to_unit(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 127.5 - 1


def _patches(x: np.ndarray, side: int) -> np.ndarray:
    """(B, H, W, C) -> (B, H/side, W/side, side*side*C), row-major inside a patch."""
    batch, height, width, channels = x.shape
    grid = x.reshape(batch, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, height // side, width // side, side * side * channels)


def _components(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The leading principal directions (D, count) and the standard deviation along each."""
    centred = rows - rows.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    return vectors[:, ::-1][:, :count], np.sqrt(values[::-1][:count])


def encode_folder(folder: Path) -> tuple[LatentBasis, np.ndarray]:
    """The basis and the float16 latents (N, 32, 8, 8) of images.npy in `folder`, made once and kept there."""
    images = np.load(folder / "images.npy", mmap_mode="r")
    if not (folder / "latents.npy").exists():
        sample = np.sort(np.random.default_rng(0).choice(len(images), min(4000, len(images)), replace=False))
        basis = fit_basis(images[sample])
        basis.save(folder / "basis.npz")
        chunks = [basis.encode(images[i : i + 512]).astype(np.float16) for i in range(0, len(images), 512)]
        np.save(folder / "latents.npy", np.concatenate(chunks))
    return LatentBasis.load(folder / "basis.npz"), np.load(folder / "latents.npy")
