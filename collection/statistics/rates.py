"""How often one is preferred to another, the left to the right, and how many votes it would take to tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from collection.statistics.clusters import LEAST_PEOPLE, Clustered, Spread, effective_number, two_way
from collection.statistics.counts import Cells, Votes

Z_95: Final = 1.959963984540054
Z_POWER: Final = 0.8416212335729143  # 80% power
LEAST_VOTES: Final = 10  # below, no advice
MOST_VOTES: Final = 1_000_000  # beyond this "how many more" is no advice
ALIKE: Final = 0.05  # as good as equal: within this of one half
EVEN_VARIANCE: Final = 0.25  # of a vote that is 1 or 0 with equal chances


@dataclass(frozen=True)
class WinRate:
    """How often variant_a was preferred to variant_b, in [0, 1], a tie being half a win, with its 95% interval.

    low and high are None where `missing` says what an interval still needs. variance and df: of the rate, over people
    and prompts. design_effect: how many times the variance is that of votes that stand for themselves, at least 1.
    """

    variant_a: str
    variant_b: str
    rate: float
    low: float | None
    high: float | None
    votes: int
    design_effect: float = 1.0
    people: int = 0
    prompts: int = 0
    missing: str = ""
    variance: float | None = None
    df: float | None = None
    contender_a: str = ""
    contender_b: str = ""

    def turned(self) -> WinRate:
        """The same, told from variant_b."""
        low, high = (None if bound is None else 1 - bound for bound in (self.high, self.low))
        names = (self.variant_b, self.variant_a)
        turned = replace(self, contender_a=self.contender_b, contender_b=self.contender_a, rate=1 - self.rate)
        return replace(turned, variant_a=names[0], variant_b=names[1], low=low, high=high)


@dataclass(frozen=True)
class PositionBias:
    """How often the left side won among decided votes; 0.5 lies in the interval when the sides are fair."""

    left_rate: float
    low: float | None
    high: float | None
    votes: int
    missing: str = ""


@dataclass(frozen=True)
class Power:
    """How many more votes tell two variants apart (5% two-sided, 80% power) if rate and variance stay as they are, of
    new people and prompts as now.

    more: 0 when their interval excludes one half already; None when no number of votes to speak of would do, or where
    `missing` says what any advice still needs.
    """

    variant_a: str
    variant_b: str
    more: int | None
    missing: str = ""
    contender_a: str = ""
    contender_b: str = ""


def wilson_interval(successes: float, total: float, quantile: float = Z_95) -> tuple[float, float]:
    """The 95% score interval of Wilson (1927) for a share; (0, 1) when nothing is known. Half successes are fine."""
    if total == 0 or not math.isfinite(quantile):
        return 0.0, 1.0
    share = successes / total
    shrink = 1.0 + quantile**2 / total
    middle = (share + quantile**2 / (2 * total)) / shrink
    reach = quantile / shrink * math.sqrt(share * (1 - share) / total + quantile**2 / (4 * total**2))
    return min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach))


def win_rates(votes: Votes) -> list[WinRate]:
    """The share of each pair of contenders that was voted on, in order."""
    return [
        _win_rate(votes.contenders[first], votes.contenders[second], ours) for (first, second), ours in votes.pairs()
    ]


def _win_rate(a: str, b: str, ours: Votes) -> WinRate:
    wins, losses, *equal = ours.totals()[:4]
    counts = np.array([wins, losses, sum(equal)])
    total, rate = float(counts.sum()), float((wins + sum(equal) / 2) / counts.sum())
    people, prompts = (
        Clustered(table.of_clusters(table.score - rate * table.votes) / total, table.of_clusters(table.votes) / total)
        for table in (ours.by_person, ours.by_prompt)
    )
    independent = _vote_variance(counts) / total
    spread = two_way(people, prompts, independent)
    known = WinRate(a, b, rate, None, None, round(total), people=len(people.share), prompts=len(prompts.share))
    if missing := still_missing(people=known.people):
        return replace(known, missing=missing)
    worth, spread = _worth(counts, spread, people, prompts)
    effect = spread.variance / independent if independent > 0 else total / worth
    low, high = wilson_interval(rate * worth, worth, spread.t)
    sure = replace(known, low=low, high=high, variance=spread.variance, df=spread.df)
    return replace(sure, design_effect=max(1.0, effect))


def still_missing(*, people: int, votes: int = LEAST_VOTES) -> str:
    """What has to come before anything can be said, in words; empty where there is enough."""
    wanted = ((LEAST_PEOPLE - people, "person", "people"), (LEAST_VOTES - votes, "vote", "votes"))
    needs = [f"{number} more {one if number == 1 else many}" for number, one, many in wanted if number > 0]
    return " and ".join(needs)


def _vote_variance(counts: np.ndarray) -> float:
    """The variance of one vote, told as 1, 1/2 or 0, from (3,) wins, losses and ties."""
    wins, _, ties = counts / counts.sum()
    return float(wins + ties / 4 - (wins + ties / 2) ** 2)


def _worth(counts: np.ndarray, spread: Spread, people: Clustered, prompts: Clustered) -> tuple[float, Spread]:
    """As many votes that are 1 or 0, each for itself, would leave the rate as unsure; and its spread.

    Where all votes are alike their variance says 0. Then they are worth one vote for each person or prompt, whichever
    are fewer, with half a vote more for each outcome.
    """
    if spread.variance > 0:
        rate = (counts[0] + counts[2] / 2) / counts.sum()
        return float(rate * (1 - rate) / spread.variance), spread
    fewer = min(
        (each for each in (people, prompts) if len(each.share) > 1), key=lambda each: effective_number(each.share)
    )
    number = effective_number(fewer.share)
    softened = counts / counts.sum() * number + 0.5
    variance = _vote_variance(softened) / number
    rate = (softened[0] + softened[2] / 2) / softened.sum()
    return float(rate * (1 - rate) / variance), Spread(variance, max(1.0, number - 1))


def position_bias(votes: Votes) -> PositionBias | None:
    """The left side's share of decided votes, however the contenders; None without any."""
    decided = [table.outcomes[:, :2].sum(1) for table in (votes.by_person, votes.by_prompt)]
    people, prompts = (
        _left_share(table, of) for table, of in zip((votes.by_person, votes.by_prompt), decided, strict=True)
    )
    total = float(decided[0].sum())
    if people is None or prompts is None:
        return None
    rate = float(votes.by_person.outcomes[:, 4].sum() / total)
    missing = still_missing(people=len(people.share))
    if missing:
        return PositionBias(rate, None, None, round(total), missing)
    counts = np.array([rate, 1 - rate, 0.0]) * total
    spread = two_way(people, prompts, _vote_variance(counts) / total)
    worth, spread = _worth(counts, spread, people, prompts)
    return PositionBias(rate, *wilson_interval(rate * worth, worth, spread.t), votes=round(total))


def _left_share(table: Cells, decided: np.ndarray) -> Clustered | None:
    """The left side's share by the clusters that decided anything; None where none did."""
    total = decided.sum()
    if not total:
        return None
    left = table.outcomes[:, 4]
    share = table.of_clusters(decided) / total
    influence = table.of_clusters(left - decided * left.sum() / total) / total
    return Clustered(influence[share > 0], share[share > 0])


def power(rates: Sequence[WinRate]) -> list[Power]:
    """How many more votes each pair needs; what the interval says decides, so that both say the same."""
    return [Power(rate.variant_a, rate.variant_b, *_more(rate), rate.contender_a, rate.contender_b) for rate in rates]


def _more(rate: WinRate) -> tuple[int | None, str]:
    """How many more votes, and what is missing."""
    missing = still_missing(people=rate.people, votes=rate.votes)
    if missing or rate.low is None or rate.high is None or rate.variance is None or rate.df is None:
        return None, missing
    if not rate.low <= 0.5 <= rate.high:
        return 0, ""
    distance, t = abs(rate.rate - 0.5), Spread(rate.variance, rate.df).t
    # The interval is Wilson's, whose width at one half is that of the variance there.
    at_half = rate.variance * EVEN_VARIANCE / max(rate.rate * (1 - rate.rate), 1e-12)
    wanted = (t * math.sqrt(at_half) + Z_POWER * math.sqrt(rate.variance)) ** 2 * rate.votes
    if distance > 0 and wanted / distance**2 <= MOST_VOTES:
        return max(1, math.ceil(wanted / distance**2) - rate.votes), ""
    alike = rate.low >= 0.5 - ALIKE and rate.high <= 0.5 + ALIKE
    return None, "" if alike else _until_seen(wanted, rate.votes)


def _until_seen(wanted: float, votes: int) -> str:
    """What an even result still needs before it means that both are alike, or not."""
    more = max(1, math.ceil(wanted / ALIKE**2) - votes)
    return f"about {more:,} more votes to see {0.5 + ALIKE:.0%} against {0.5 - ALIKE:.0%}"
