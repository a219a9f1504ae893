"""Examples as tensors: what the pictures of an example look like at a position's noise and timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.engine.config import TrainConfig
from train.network.policy import Network, PromptTable
from train.network.schedule import nearest
from train.pairs.draws import DrawPlan

ON_DEVICE_BYTES = 2 << 30  # latents beyond this stay in main memory and travel batch by batch


def draw_plan(config: TrainConfig, network: Network, count: int, shape: tuple[int, ...]) -> DrawPlan:
    """The draws of a run on `count` examples with latents of `shape`, by the settings that say where to train."""
    low, high = (round(end * network.schedule.timesteps) for end in config.timestep_range)
    return DrawPlan(config.seed, count, shape, (low, high), config.caption_dropout, config.timestep_sampling)


@dataclass(frozen=True, eq=False)
class Batch:
    """B examples of V pictures each, all first pictures before all second ones: chosen and dropped are (B,), all else
    has V*B rows.

    chosen: which examples. dropped: bool, whose captions were. prompt, empty: the UNet's conditioning on each
    example's prompt (or the empty one where it was dropped), and on none.
    """

    chosen: Tensor
    dropped: Tensor
    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    prompt: dict[str, Any]
    empty: dict[str, Any]

    def error(self, prediction: Tensor) -> Tensor:
        """One mean squared error per picture, (V*B,)."""
        return (prediction - self.target).pow(2).flatten(1).mean(1)


class Batches:
    """Examples of V pictures each: two for a pair, one for a picture without a rival."""

    def __init__(
        self,
        config: TrainConfig,
        latents: np.ndarray,
        prompts: Sequence[str],
        table: PromptTable,
        network: Network,
        grid: Tensor | None = None,
    ) -> None:
        """latents: (N, V, [F,] C, H, W) float16; prompts: N, which `table` knows. grid: timesteps, (S,), the nearest of
        which are taken for those that are drawn."""
        whole = torch.from_numpy(latents)
        self._network, self._table, self._grid = network, table, grid
        self._latents = whole.to(network.device) if whole.nbytes <= ON_DEVICE_BYTES else whole
        self._rows = torch.tensor([table.rows[prompt] for prompt in prompts], device=network.device)  # (N,)
        self._plan = draw_plan(config, network, len(whole), tuple(whole.shape[2:]))

    def at(self, first: int, last: int) -> Batch:
        """The batch of positions first .. last-1."""
        device, draws = self._network.device, self._plan.at(first, last)
        chosen = torch.from_numpy(draws.pairs)
        clean = self._latents[chosen.to(self._latents.device)].to(device).float()
        views = clean.shape[1]
        clean = clean.transpose(0, 1).flatten(0, 1)  # (B, V, [F,] C, H, W) -> (V*B, [F,] C, H, W)
        # The same noise and timestep for all pictures of an example: what differs is the picture alone.
        noise = torch.cat([torch.from_numpy(draws.noise).to(device)] * views)
        timesteps = torch.from_numpy(draws.timesteps).to(device).repeat(views)
        if self._grid is not None:
            timesteps = self._grid[nearest(self._grid, timesteps)]
        dropped = torch.from_numpy(draws.caption_dropped).to(device)
        chosen = chosen.to(device)
        rows = self._rows[chosen].masked_fill(dropped, 0).repeat(views)
        schedule = self._network.schedule
        return Batch(
            chosen=chosen,
            dropped=dropped,
            noisy=schedule.noisy(clean, noise, timesteps),
            target=schedule.target(clean, noise, timesteps),
            timesteps=timesteps,
            prompt=self._table.conditioning(rows),
            empty=self._table.conditioning(torch.zeros_like(rows)),
        )
