"""Latents from the base itself, for training: complete or truncated samples, each from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""(noisy latents (B, C, H, W), timestep ()) -> what the network predicts there, guided or not."""


class DdimPath:
    """A deterministic way from noise to a picture (DDIM, arXiv 2010.02502, eta 0) of `steps` steps."""

    def __init__(self, scheduler_config: object, steps: int, device: torch.device) -> None:
        self._scheduler = DDIMScheduler.from_config(scheduler_config)
        self._scheduler.set_timesteps(steps, device=device)
        self._scheduler.alphas_cumprod = self._scheduler.alphas_cumprod.to(device)

    def walk(self, predict: Predict, noise: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """(latents after the first `steps` steps, the picture that the last of them expected), (B, C, H, W) each."""
        latents, expected = noise * self._scheduler.init_noise_sigma, noise
        for timestep in self._scheduler.timesteps[:steps]:
            step = self._scheduler.step(predict(latents, timestep), timestep, latents)
            latents, expected = step.prev_sample, step.pred_original_sample
        return latents, expected

    def finish(self, predict: Predict, latents: Tensor) -> Tensor:
        """The picture that the last step expects; a gradient through it goes through one forward pass only."""
        timestep = self._scheduler.timesteps[-1]
        expected: Tensor = self._scheduler.step(predict(latents, timestep), timestep, latents).pred_original_sample
        return expected


def seeded_noise(seeds: Sequence[int], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(B, *shape): row i from seeds[i] alone, the same on every device."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]).to(device)
