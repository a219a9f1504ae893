"""What is learned from pictures without a rival: the loss that diffusion models are pretrained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from train.engine.config import TrainConfig
from train.network.policy import Network, PromptTable
from train.objectives.batches import Batches


@dataclass(frozen=True, eq=False)
class Picture:
    """One example without a rival: float16 latents (C, H, W) at UNet scale, and where they come from."""

    prompt: str
    latents: np.ndarray
    source: str


class DenoisingObjective:
    """The mean squared error of the prediction."""

    metrics: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(
        self, config: TrainConfig, pictures: Sequence[Picture], prompts: PromptTable, network: Network
    ) -> None:
        latents = np.stack([picture.latents[None] for picture in pictures]).astype(np.float16, copy=False)
        self._network = network
        self._batches = Batches(config, latents, [picture.prompt for picture in pictures], prompts, network)

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective."""
        batch = self._batches.at(first, last)
        loss = batch.error(self._network.policy(batch.noisy, batch.timesteps, batch.prompt)).mean()
        return loss, loss.detach()[None]
