"""Self-NPO: a negative model learns to draw what its own short attempts look like, without any preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from train.engine.config import TrainConfig
from train.network.policy import Network, PromptTable
from train.objectives.batches import Batches, draw_plan

GRID_STEPS = 25  # of the DDIM schedule that the solver takes its steps on
SOLVER_STEPS = 5
HUBER_C = 1e-3  # where the loss turns from a square to an absolute difference


@dataclass(frozen=True, eq=False)
class Picture:
    """One example without a rival: float16 latents (C, H, W) at UNet scale, and where they come from."""

    prompt: str
    latents: np.ndarray
    source: str


def pseudo_huber(prediction: Tensor, target: Tensor) -> Tensor:
    """sqrt((prediction - target)^2 + c^2) - c, of the same shape."""
    return ((prediction - target).square() + HUBER_C**2).sqrt() - HUBER_C


class SelfNegativeObjective:
    """Truncated diffusion fine-tuning (arXiv 2505.11777), as its published code computes it.

    A picture x_0 is noised to a timestep t of a grid. The teacher, the policy's moving average, is asked with the empty
    prompt alone; it takes SOLVER_STEPS steps of DDIM from there, to x_s, and what it then expects the picture to be is
    the target. The policy is to see it, with the prompt, in x_s noised further to a timestep u, drawn evenly between s
    and the end; the loss is between pictures, not between predictions. As the policy follows, so does its teacher, and
    both drift towards what few unguided steps make of a picture.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(
        self, config: TrainConfig, pictures: Sequence[Picture], prompts: PromptTable, network: Network
    ) -> None:
        self._network = network
        latents = np.stack([picture.latents[None] for picture in pictures]).astype(np.float16, copy=False)
        grid = torch.arange(1, GRID_STEPS + 1, device=network.device) * (network.schedule.timesteps // GRID_STEPS) - 1
        self._batches = Batches(config, latents, [one.prompt for one in pictures], prompts, network, grid)
        everywhere = replace(config, seed=config.seed + 1, timestep_range=(0.0, 1.0), timestep_sampling="uniform")
        self._later = draw_plan(everywhere, network, len(pictures), latents.shape[2:])  # the second noise, and where to

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective."""
        schedule, device = self._network.schedule, self._network.device
        batch, later = self._batches.at(first, last), self._later.at(first, last)
        reached, timesteps, target = self._attempt(batch.noisy, batch.timesteps, batch.empty)
        share = torch.from_numpy(later.timesteps).to(device) / schedule.timesteps  # (B,) in [0, 1)
        noisier = timesteps + 1 + (share * (schedule.timesteps - 1 - timesteps)).long()
        seen = schedule.noisier(reached, timesteps, noisier, torch.from_numpy(later.noise).to(device))
        prediction = self._network.policy(seen, noisier, batch.prompt)
        loss = pseudo_huber(schedule.clean(seen, prediction, noisier), target).mean()
        return loss, loss.detach()[None]

    def _attempt(self, latents: Tensor, timesteps: Tensor, empty: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """(x_s, s, the picture expected there) after the teacher's steps from `latents` at `timesteps`, (B,), of the
        grid; what comes to its clean end stays there."""
        schedule, teacher = self._network.schedule, self._network.teacher
        apart = schedule.timesteps // GRID_STEPS
        for _ in range(SOLVER_STEPS):
            expected = schedule.clean(latents, teacher(latents, timesteps, empty), timesteps)
            before = (timesteps - apart).clamp(min=0)
            moved = schedule.noisy(expected, schedule.noise(latents, expected, timesteps), before)
            latents = torch.where((timesteps > 0).view(-1, 1, 1, 1), moved, latents)
            timesteps = before
        return latents, timesteps, schedule.clean(latents, teacher(latents, timesteps, empty), timesteps)
