"""The noise that a base was trained with, and deterministic ways along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from npo_core.catalog.families import build_scheduler
from npo_core.errors import InputError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (B, C, H, W), timestep ()) -> what the network predicts there, guided or not."""


class NoiseSchedule:
    """The noise that the base was trained with, and what it was trained to predict there.

    With a_t the share of the picture's variance that is left at timestep t, x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e.
    """

    def __init__(self, scheduler_config: Mapping[str, Any], device: torch.device) -> None:
        scheduler = build_scheduler("ddim", scheduler_config)
        self._scheduler = scheduler
        self._kept: Tensor = scheduler.alphas_cumprod.to(device)  # a_t
        scheduler.alphas_cumprod = self._kept
        self.timesteps: int = scheduler.config.num_train_timesteps
        self.prediction_type: str = scheduler.config.prediction_type
        if self.prediction_type not in PREDICTION_TYPES:
            raise InputError(
                f"The base predicts {self.prediction_type!r}; training knows epsilon, v_prediction and sample."
            )

    def noisy(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(a_t) * clean + sqrt(1 - a_t) * noise, (B, C, H, W)."""
        noisy: Tensor = self._scheduler.add_noise(clean, noise, timesteps)
        return noisy

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect network answers to `noisy`: the noise, or v = sqrt(a_t) * noise - sqrt(1 - a_t) * clean.

        v is finite where a_t = 0 too (zero terminal SNR, arXiv 2305.08891), which is why such bases predict it.
        """
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "v_prediction":
            velocity: Tensor = self._scheduler.get_velocity(clean, noise, timesteps)
            return velocity
        return clean

    def clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """The picture x_0 that a `prediction` at `noisy` stands for, (B, C, H, W)."""
        kept = self._share(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()
        if self.prediction_type == "v_prediction":
            return kept.sqrt() * noisy - (1 - kept).sqrt() * prediction
        return prediction

    def noise(self, noisy: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        """The noise in `noisy` where the picture in it is `clean`, (B, C, H, W)."""
        kept = self._share(timesteps, noisy)
        return (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()

    def noisier(self, noisy: Tensor, timesteps: Tensor, later: Tensor, noise: Tensor) -> Tensor:
        """sqrt(a_u / a_t) x_t + sqrt(1 - a_u / a_t) e: latents at `timesteps` t with more noise e, at `later` u > t."""
        left = self._share(later, noisy) / self._share(timesteps, noisy)
        return left.sqrt() * noisy + (1 - left).sqrt() * noise

    def _share(self, timesteps: Tensor, like: Tensor) -> Tensor:
        """a_t, (B, 1, ...)."""
        return self._kept[timesteps].view(-1, *[1] * (like.ndim - 1)).float()


class DdimPath:
    """A deterministic way from noise to a picture (DDIM, arXiv 2010.02502, eta 0) of `steps` steps."""

    def __init__(self, scheduler_config: Mapping[str, Any], steps: int, device: torch.device) -> None:
        self._scheduler = build_scheduler("ddim", scheduler_config)
        self._scheduler.set_timesteps(steps, device=device)
        self._scheduler.alphas_cumprod = self._scheduler.alphas_cumprod.to(device)
        self.timesteps: Tensor = self._scheduler.timesteps
        """(steps,) int64, falling: where the network is asked."""

    def walk(self, predict: Predict, noise: Tensor, steps: int) -> tuple[list[Tensor], Tensor]:
        """(latents before each of the first `steps` steps and after the last of them, the picture that the last of
        them expected), (B, C, H, W) each."""
        way, expected = [noise * self._scheduler.init_noise_sigma], noise
        for timestep in self.timesteps[:steps]:
            step = self._scheduler.step(predict(way[-1], timestep), timestep, way[-1])
            way.append(step.prev_sample)
            expected = step.pred_original_sample
        return way, expected


def nearest(grid: Tensor, timesteps: Tensor) -> Tensor:
    """(B,) int64: which of `grid`, (S,), is nearest to each of `timesteps`, (B,)."""
    return (grid[None] - timesteps[:, None]).abs().argmin(1)


def seeded_noise(seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(B, *shape): row i from seeds[i] alone, the same on every device."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).to(device)
