"""What the votes say: pure functions of counts, no database.

A tie, and "both bad", counts as half a win for each side throughout. Intervals are 95%.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from collection.records import Judgement, VoteCount

Z_95: Final = 1.959963984540054
ELO_POINTS: Final = 400.0 / math.log(10.0)  # ten times the odds are 400 points
ELO_MEAN: Final = 1000.0


@dataclass(frozen=True)
class WinRate:
    """How often variant_a was preferred to variant_b, in [0, 1], with its 95% interval and the votes behind it."""

    variant_a: str
    variant_b: str
    rate: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True)
class Rating:
    """A variant's Bradley-Terry strength in Elo points (mean 1000, +400 = ten times the odds), with its interval.

    low and high are None when fewer than two people voted: nothing to resample.
    """

    variant: str
    points: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PositionBias:
    """How often the left side won among decided votes; 0.5 lies in the interval when the sides are fair."""

    left_rate: float
    low: float
    high: float
    votes: int


def fold_outcomes(rows: Iterable[tuple[str, str, str, int]]) -> list[VoteCount]:
    """Adds up (left variant, right variant, choice, how many) whichever side each variant stood on.

    Returns one VoteCount a pair, variant_a < variant_b in the alphabet, in order. Skips do not count.
    """
    tallies: dict[tuple[str, str], dict[str, int]] = {}
    for left, right, choice, count in rows:
        if choice == "skip":
            continue
        a, b = sorted((left, right))
        tally = tallies.setdefault((a, b), {"wins_a": 0, "wins_b": 0, "ties": 0, "both_bad": 0})
        if choice == "tie":
            tally["ties"] += count
        elif choice == "both_bad":
            tally["both_bad"] += count
        else:
            winner = left if choice == "left" else right
            tally["wins_a" if winner == a else "wins_b"] += count
    return [VoteCount(a, b, **tally) for (a, b), tally in sorted(tallies.items())]


def wilson_interval(successes: float, total: int) -> tuple[float, float]:
    """The 95% score interval of Wilson (1927) for a share; (0, 1) when nothing is known. Half successes are fine."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    shrink = 1.0 + Z_95**2 / total
    middle = (share + Z_95**2 / (2 * total)) / shrink
    reach = Z_95 / shrink * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def win_rates(counts: Sequence[VoteCount]) -> list[WinRate]:
    """The share of each pair of variants with Wilson's interval; pairs without a vote are left out."""
    rates = []
    for count in counts:
        if count.total:
            wins = count.wins_a + (count.ties + count.both_bad) / 2
            low, high = wilson_interval(wins, count.total)
            rates.append(WinRate(count.variant_a, count.variant_b, wins / count.total, low, high, count.total))
    return rates


def bradley_terry(counts: Sequence[VoteCount], prior_ties: float = 1.0) -> dict[str, float]:
    """Strengths in Elo points, best first: P(i beats j) = 1 / (1 + 10^((points_j - points_i) / 400)).

    Bradley and Terry, Biometrika 39 (1952). `prior_ties` imaginary ties between every two variants keep one that
    never lost (or never met another) finite. 0 gives the plain maximum likelihood, for which each must have won
    and lost.
    """
    variants = _variants(counts)
    points = _fit(_win_matrix(counts, variants), prior_ties)
    return {variants[row]: float(points[row]) for row in np.argsort(-points, kind="stable")}


def ratings(
    counts_by_participant: Mapping[str, Sequence[VoteCount]], rng: np.random.Generator, rounds: int = 500
) -> list[Rating]:
    """Bradley-Terry points, best first, with intervals from resampling people `rounds` times.

    One person's votes hang together, so drawing votes one by one would make the intervals far too narrow.
    """
    everything = [count for counts in counts_by_participant.values() for count in counts]
    points, variants, people = bradley_terry(everything), _variants(everything), len(counts_by_participant)
    if people < 2:
        return [Rating(variant, value, None, None) for variant, value in points.items()]
    wins = np.stack([_win_matrix(counts, variants) for counts in counts_by_participant.values()])  # (P, V, V)
    times_drawn = rng.multinomial(people, np.full(people, 1 / people), size=rounds)  # (rounds, P)
    fits = np.stack([_fit(sample) for sample in np.einsum("rp,pij->rij", times_drawn, wins)])  # (rounds, V)
    low, high = np.quantile(fits, (0.025, 0.975), axis=0)
    bounds = {variant: (float(low[row]), float(high[row])) for row, variant in enumerate(variants)}
    return [Rating(variant, value, *bounds[variant]) for variant, value in points.items()]


def position_bias(left_wins: int, right_wins: int) -> PositionBias | None:
    """The left side's share of decided votes; None without any."""
    total = left_wins + right_wins
    if total == 0:
        return None
    return PositionBias(left_wins / total, *wilson_interval(left_wins, total), votes=total)


def agreement(judgements: Sequence[Judgement]) -> float | None:
    """Krippendorff's alpha over pairs judged by several people: 1 full agreement, 0 chance, below 0 worse.

    Nominal verdicts (first, second, tie). None when no pair was judged by two people.
    """
    import evalica  # here, because it brings pandas and scipy: a second that only statistics should cost
    import pandas as pd

    numbers = {"first": 0.0, "second": 1.0, "tie": 2.0}
    table: dict[str, dict[str, float]] = {}
    for judgement in judgements:
        table.setdefault(judgement.item, {})[judgement.participant_id] = numbers[judgement.verdict]
    shared = {item: verdicts for item, verdicts in table.items() if len(verdicts) > 1}
    if not shared:
        return None
    return float(evalica.alpha(pd.DataFrame(shared), distance="nominal").alpha)  # people x items


def _variants(counts: Iterable[VoteCount]) -> list[str]:
    return sorted({name for count in counts for name in (count.variant_a, count.variant_b)})


def _win_matrix(counts: Iterable[VoteCount], variants: Sequence[str]) -> np.ndarray:
    """(V, V): how often the row's variant beat the column's, a tie being half a win for each."""
    wins = np.zeros((len(variants), len(variants)))
    for count in counts:
        a, b = variants.index(count.variant_a), variants.index(count.variant_b)
        halves = (count.ties + count.both_bad) / 2
        wins[a, b] += count.wins_a + halves
        wins[b, a] += count.wins_b + halves
    return wins


def _fit(wins: np.ndarray, prior_ties: float = 1.0) -> np.ndarray:
    """(V,): Elo points with mean 1000 for a (V, V) win matrix."""
    import evalica  # see `agreement`

    size = len(wins)
    if size == 0:
        return np.zeros(0)
    winners, losers = np.nonzero(~np.eye(size, dtype=bool))
    weights = wins[winners, losers] + prior_ties / 2
    fit = evalica.bradley_terry(
        winners.tolist(),
        losers.tolist(),
        [evalica.Winner.X] * len(winners),
        weights=weights,
        tolerance=1e-10,
        limit=10_000,
    )
    log_odds = np.log(fit.scores.sort_index().to_numpy())
    return ELO_MEAN + ELO_POINTS * (log_odds - log_odds.mean())
