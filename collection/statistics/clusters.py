"""How sure a number is when one person's votes hang together, and so do the votes on one prompt.

Every statistic here is, near enough, a sum over votes of what each adds to its error (its influence). Summed by person
and by prompt before squaring, and put together as Cameron, Gelbach and Miller (2011) do for two ways of clustering,
with the jackknife's correction and the effective degrees of freedom that few or uneven clusters need (MacKinnon,
Nielsen and Webb 2024; Bell and McCaffrey 2002). METHODOLOGY.md has the formulas and what they were checked against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

LEAST_PEOPLE: Final = 3
"""Below, no interval: what one or two people have in common cannot be told from what everybody has."""

WHOLE: Final = 1 - 1e-9  # a cluster with this share of all information is all there is


@dataclass(frozen=True)
class Spread:
    """The sampling variance of a number, with the degrees of freedom of Student's t that fit it."""

    variance: float
    df: float

    @property
    def t(self) -> float:
        """How many standard errors a 95% interval reaches to each side."""
        from scipy.special import stdtrit  # here: it takes a moment that no start of a command should

        return float(stdtrit(self.df, 0.975))

    @property
    def reach(self) -> float:
        """Half the width of the 95% interval."""
        return self.t * math.sqrt(self.variance)


@dataclass(frozen=True, eq=False)
class Clustered:
    """A statistic by its clusters, (G,) each: what the votes of each add to its error, and their share of all
    information (of the votes, for a mean), which adds up to 1."""

    influence: np.ndarray
    share: np.ndarray

    def spread(self) -> Spread:
        """The jackknife variance over these clusters, with Satterthwaite's degrees of freedom.

        Those are for clusters whose error varies with share * (share + mean share): of somebody as active as the
        average one half of it is taste, of the most active nearly all.
        """
        e, w, count = self.influence, self.share, len(self.share)
        if count < 2 or w.max() > WHOLE:
            return Spread(math.inf, 1.0)
        weight = (count - 1) / count / (1 - w) ** 2
        s = w * (w + 1 / count)
        whole = s.sum()
        # Of the residuals e - w * sum(e): variances s + own on the diagonal, and beside it all that the sum makes.
        own = whole * w**2 - 2 * w * s
        a, b, c = (weight * w**2).sum(), (weight * s**2).sum(), (weight * w * s).sum()
        beside = 2 * a * b + 2 * c**2 + (whole * a) ** 2 - 4 * whole * a * c
        squares = beside + (weight**2 * ((s + own) ** 2 - own**2)).sum()
        df = (weight * (s + own)).sum() ** 2 / squares
        return Spread(float((weight * e**2).sum()), max(1.0, float(df)))


def two_way(people: Clustered, prompts: Clustered, independent: float) -> Spread:
    """The variance over people and prompts; `independent` is the one if each vote stood for itself.

    Votes on one prompt say nothing about others: there the interval is for that prompt.
    """
    by_person = people.spread()
    if len(prompts.share) < 2:
        return Spread(max(by_person.variance, independent), by_person.df)
    by_prompt = prompts.spread()
    if not math.isfinite(by_person.variance + by_prompt.variance):
        return Spread(math.inf, 1.0)
    both = by_person.variance + by_prompt.variance
    variance = max(both - independent, by_person.variance, by_prompt.variance, independent)
    return Spread(variance, _together(by_person, by_prompt))


def _together(one: Spread, other: Spread) -> float:
    """Degrees of freedom of the sum of two variances. Satterthwaite weighs by squared shares, which is too hopeful
    where the shares themselves come from a few clusters; the power 1.5 was found by simulation."""
    whole = one.variance + other.variance
    if whole == 0:
        return min(one.df, other.df)
    return max(1.0, 1 / sum((each.variance / whole) ** 1.5 / each.df for each in (one, other)))


def effective_number(share: np.ndarray) -> float:
    """As how many equally large clusters these count."""
    return float(1 / (share**2).sum())
