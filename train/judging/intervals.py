"""How sure a mean over prompts is, and what may be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

ROUNDS = 2000

Side = Literal["above", "below", "unclear"]


def resampled_prompts(prompts: Sequence[str], rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """(rounds, N) how often each of the N pictures counts when PROMPTS are drawn anew with replacement: pictures of one
    prompt share its luck, and are drawn together or not at all."""
    distinct, which = np.unique(np.asarray(prompts), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), rounds)
    return np.asarray(drawn[:, which], np.float64)


def mean_interval(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of the mean of `values` (N,) over `counts` (R, N) from `resampled_prompts`.

    Of a paired difference it is the paired bootstrap.
    """
    means = counts @ values / counts.sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def side_of(interval: Sequence[float], middle: float) -> Side:
    """Where an interval lies: above `middle`, below it, or unclear because it contains it."""
    low, high = interval
    return "above" if low > middle else "below" if high < middle else "unclear"
