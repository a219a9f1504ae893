"""What each training step sees, as a pure function of (seed, position): which example, which noise, which timestep.

Positions count the examples (pairs, mostly) that a run has seen, 0, 1, 2, ...; step s of a run with B a step sees
positions s*B .. s*B + B-1. Every position has its own random stream (one seed per sample, not per batch), so nothing
has to be saved to resume exactly, and how a batch is split over processes or accumulation steps does not change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

_ORDER_STREAM = 1 << 63  # keys the order of pairs apart from positions, which stay below

TIMESTEP_SAMPLING: dict[str, Callable[[np.random.Generator], float]] = {  # -> a share of the schedule, 1 the noisiest
    "uniform": lambda random: random.random(),
    # Most often in the middle, where a guess is neither hopeless nor easy (Stable Diffusion 3, arXiv 2403.03206).
    "logit_normal": lambda random: 1 / (1 + math.exp(-random.standard_normal())),
    # Density 2t: the noisy end, where composition and colour are decided, twice as often as the average.
    "high_noise": lambda random: math.sqrt(random.random()),
}


@dataclass(frozen=True)
class Draws:
    """The draws of B positions.

    pairs: (B,) int64, which pair. noise: (B, C, H, W), or (B, F, C, H, W) for clips, float32, shared by both pictures
    of the pair. timesteps: (B,) int64, shared likewise. caption_dropped: (B,) bool, train this one on the empty prompt.
    """

    pairs: np.ndarray
    noise: np.ndarray
    timesteps: np.ndarray
    caption_dropped: np.ndarray


@dataclass
class DrawPlan:
    """Draws for `pair_count` pairs with latents of `latent_shape` (C, H, W), or (F, C, H, W) for clips.

    timesteps: [low, high), drawn as `sampling`, a key of TIMESTEP_SAMPLING, says. caption_dropout: the share of draws
    that see the empty prompt.
    """

    seed: int
    pair_count: int
    latent_shape: tuple[int, ...]
    timesteps: tuple[int, int]
    caption_dropout: float
    sampling: str = "uniform"
    _order: tuple[int, np.ndarray] | None = field(default=None, init=False, repr=False)

    def at(self, first: int, last: int) -> Draws:
        """The draws of positions first .. last-1."""
        count = last - first
        low, high = self.timesteps
        share = TIMESTEP_SAMPLING[self.sampling]
        noise = np.empty((count, *self.latent_shape), dtype=np.float32)  # (B, [F,] C, H, W)
        timesteps = np.empty(count, dtype=np.int64)
        dropped = np.empty(count, dtype=bool)
        for row, position in enumerate(range(first, last)):
            random = self._stream(position)
            random.standard_normal(out=noise[row], dtype=np.float32)
            timesteps[row] = min(high - 1, low + int(share(random) * (high - low)))
            dropped[row] = random.random() < self.caption_dropout
        pairs = np.array([self._pair_at(position) for position in range(first, last)], dtype=np.int64)
        return Draws(pairs, noise, timesteps, dropped)

    def _pair_at(self, position: int) -> int:
        """Every pass over the pairs has its own shuffled order, and passes follow each other without a gap."""
        epoch, place = divmod(position, self.pair_count)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, self._stream(_ORDER_STREAM + epoch).permutation(self.pair_count))
        return int(self._order[1][place])

    def _stream(self, number: int) -> np.random.Generator:
        """Stream `number` of this seed. Typed, for a list of ints beyond 2^63 would turn into rounded floats."""
        return np.random.Generator(np.random.Philox(key=np.array([self.seed, number], dtype=np.uint64)))
