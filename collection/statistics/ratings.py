"""What the votes say: pure functions of counts, no database.

"Both bad" prefers neither, so it is a tie here throughout. Intervals are 95%. One person's votes hang together, so
people are resampled, not votes: see `ratings` and `win_rates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from typing import Any, Final

import numpy as np

from collection.types import VoteCount

Z_95: Final = 1.959963984540054
Z_POWER: Final = 0.8416212335729143  # 80% power
ELO_POINTS: Final = 400.0 / math.log(10.0)  # ten times the odds are 400 points
ELO_MEAN: Final = 1000.0
NEWTON_STEPS: Final = 60
MOST_VOTES: Final = 1_000_000  # beyond this "how many more" is no advice


@dataclass(frozen=True, eq=False)
class PersonCounts:
    """Outcomes of all votes, a row for each person and pair of variants, in columns: there may be a million of them.

    person: (N,) place in `people`; variant_a, variant_b: (N,) places in `variants`; outcomes: (N, 4) float64, as in
    VoteCount wins_a, wins_b, ties, both_bad. people and variants are in the order of their code points.
    """

    people: np.ndarray
    variants: np.ndarray
    person: np.ndarray
    variant_a: np.ndarray
    variant_b: np.ndarray
    outcomes: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> PersonCounts:
        """From rows (person, variant_a, variant_b, wins_a, wins_b, ties, both_bad, ...)."""
        rows = iter(rows)
        values = list(first := next(rows, ()))
        values += chain.from_iterable(rows)  # one flat list: a million small tuples would keep the collector busy
        width = len(first) or 7
        names, a, b, *outcomes = (values[column::width] for column in range(width))
        people, person = np.unique(np.array(names, str), return_inverse=True)
        variants, both = np.unique(np.array(a + b, str), return_inverse=True)
        return cls(people, variants, person, both[: len(a)], both[len(a) :], np.array(outcomes[:4], float).T.copy())


@dataclass(frozen=True)
class WinRate:
    """How often variant_a was preferred to variant_b, in [0, 1], a tie being half a win, with its 95% interval.

    design_effect: how many times the variance is that of as many votes by different people, at least 1.
    """

    variant_a: str
    variant_b: str
    rate: float
    low: float
    high: float
    votes: int
    design_effect: float = 1.0


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


@dataclass(frozen=True)
class Power:
    """How many more votes tell two variants apart (5% two-sided, 80% power) if their win rate stays as it is.

    more: 0 when their interval excludes one half already; None when no number of votes to speak of would do.
    """

    variant_a: str
    variant_b: str
    more: int | None


def wilson_interval(successes: float, total: float) -> tuple[float, float]:
    """The 95% score interval of Wilson (1927) for a share; (0, 1) when nothing is known. Half successes are fine."""
    if total == 0:
        return 0.0, 1.0
    share = successes / total
    shrink = 1.0 + Z_95**2 / total
    middle = (share + Z_95**2 / (2 * total)) / shrink
    reach = Z_95 / shrink * math.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def win_rates(counts: PersonCounts) -> list[WinRate]:
    """The share of each pair of variants, in alphabetical order; pairs without a vote are left out.

    The interval is Wilson's at votes / design_effect votes; the design effect compares the variance between people
    (the cluster-robust one) with that of independent votes.
    """
    rates, voted = [], counts.outcomes.any(1)
    for first, second in permutations(range(len(counts.variants)), 2):
        ours = (counts.variant_a == first) & (counts.variant_b == second) & voted
        if not ours.any():
            continue
        by_person = counts.outcomes[ours]  # (P, 4)
        a, b = str(counts.variants[first]), str(counts.variants[second])
        together = VoteCount(a, b, *map(int, by_person.sum(0)))
        votes, rate = together.total, _score(together) / together.total
        effect = _design_effect(by_person, together)
        low, high = wilson_interval(rate * votes / effect, votes / effect)
        rates.append(WinRate(a, b, rate, low, high, votes, effect))
    return rates


def bradley_terry(counts: Sequence[VoteCount], prior_votes: float = 1.0) -> dict[str, float]:
    """Strengths in Elo points, best first, by Davidson's model of Bradley and Terry's with ties:

        P(i beats j) : P(j beats i) : P(tie) = s_i : s_j : nu * sqrt(s_i * s_j),    points = 400 * log10(s) + const

    Bradley and Terry, Biometrika 39 (1952); Davidson, JASA 65 (1970). Without ties it is the plain model.
    `prior_votes` imaginary votes between every two variants, spread over the outcomes, keep one that never lost (or
    never met another) finite. 0 gives the plain maximum likelihood, for which each must have won and lost.
    """
    together = _of_one(counts)
    return _points(together.variants.tolist(), *_matrices(together), prior_votes)


def tie_chance(counts: Sequence[VoteCount], prior_votes: float = 1.0) -> float | None:
    """How likely a tie between two equally strong variants is, nu / (2 + nu); None without votes."""
    if not counts:
        return None
    _, log_nu = _fit(*_matrices(_of_one(counts)), prior_votes)
    nu = math.exp(log_nu[0])
    return nu / (2 + nu)


def ratings(counts: PersonCounts, rng: np.random.Generator, rounds: int = 500) -> list[Rating]:
    """Bradley-Terry points, best first, with percentile intervals from resampling people `rounds` times.

    Drawing votes one by one would make the intervals far too narrow.
    """
    wins, ties = _matrices(counts)  # (P, V, V)
    variants, people = counts.variants.tolist(), len(counts.people)
    points = _points(variants, wins, ties)
    if people < 2:
        return [Rating(variant, value, None, None) for variant, value in points.items()]
    times_drawn = np.empty((rounds, people))
    for row in times_drawn:
        row[:] = np.bincount(rng.integers(people, size=people), minlength=people)
    fits, _ = _fit(np.tensordot(times_drawn, wins, 1), np.tensordot(times_drawn, ties, 1))  # (rounds, V)
    low, high = np.quantile(fits, (0.025, 0.975), axis=0)
    bounds = {variant: (float(low[row]), float(high[row])) for row, variant in enumerate(variants)}
    return [Rating(variant, value, *bounds[variant]) for variant, value in points.items()]


def position_bias(left_wins: int, right_wins: int) -> PositionBias | None:
    """The left side's share of decided votes; None without any."""
    total = left_wins + right_wins
    if total == 0:
        return None
    return PositionBias(left_wins / total, *wilson_interval(left_wins, total), votes=total)


def agreement(counts: Iterable[VoteCount]) -> float | None:
    """Krippendorff's alpha of people who judged the same pair of pictures, one VoteCount a pair.

    1 full agreement, 0 chance, below 0 worse. Nominal verdicts: the one, the other, a tie. Which of two pictures is
    "the one" is arbitrary, so chance is told as if a fair coin decided it. None when no pair has two votes.
    """
    verdicts = [(count.wins_a, count.wins_b, count.ties + count.both_bad) for count in counts if count.total > 1]
    return nominal_alpha(np.array(verdicts, float), exchangeable=2) if verdicts else None


def nominal_alpha(counts: np.ndarray, exchangeable: int = 1) -> float | None:
    """Krippendorff's alpha for nominal data from counts (units, values); each unit has at least two values.

    The first `exchangeable` values are taken to be equally common. Krippendorff, "Computing Krippendorff's
    Alpha-Reliability" (2011), equation for nominal data in terms of a unit's counts. None where nothing varies.
    """
    unit, values = counts.sum(1), counts.sum(0)
    values[:exchangeable] = values[:exchangeable].mean()
    total = unit.sum()
    observed = ((unit**2 - (counts**2).sum(1)) / (unit - 1)).sum()
    expected = (total**2 - (values**2).sum()) / (total - 1)
    return float(1 - observed / expected) if expected else None


def power(rates: Sequence[WinRate], counts: Sequence[VoteCount]) -> list[Power]:
    """How many more votes each pair needs, from its rate, the variance of its votes and its design effect."""
    spread = {(count.variant_a, count.variant_b): _variance(count) for count in counts if count.total}
    found = []
    for rate in rates:
        distance = abs(rate.rate - 0.5)
        if not rate.low <= 0.5 <= rate.high:
            more: int | None = 0
        elif distance == 0:
            more = None
        else:
            variance = spread[rate.variant_a, rate.variant_b] * rate.design_effect
            needed = (Z_95 + Z_POWER) ** 2 * variance / distance**2
            more = max(1, math.ceil(needed) - rate.votes) if needed <= MOST_VOTES else None
        found.append(Power(rate.variant_a, rate.variant_b, more))
    return found


def _score(count: VoteCount) -> float:
    """Wins of variant_a, a tie being half of one."""
    return count.wins_a + (count.ties + count.both_bad) / 2


def _variance(count: VoteCount) -> float:
    """The variance of one vote, told as 1, 1/2 or 0."""
    mean = _score(count) / count.total
    return (count.wins_a + (count.ties + count.both_bad) / 4) / count.total - mean**2


def _design_effect(by_person: np.ndarray, together: VoteCount) -> float:
    """The cluster-robust variance of the rate over the one of independent votes; at least 1 (a vote is a vote).

    by_person: (P, 4) the outcomes of `together`, person by person.
    """
    people = len(by_person)
    votes = together.total
    independent = _variance(together) / votes
    if people < 2 or independent == 0:
        return 1.0
    wins, losses, ties, both_bad = by_person.T
    equal, rate = ties + both_bad, _score(together) / votes
    residuals = float(((wins + equal / 2 - rate * (wins + losses + equal)) ** 2).sum())
    clustered = residuals / votes**2 * people / (people - 1)
    return max(1.0, clustered / independent)


def _of_one(counts: Iterable[VoteCount]) -> PersonCounts:
    """As if one person had cast all these votes."""
    return PersonCounts.of(("", *count) for count in counts)


def _points(variants: Sequence[str], wins: np.ndarray, ties: np.ndarray, prior_votes: float = 1.0) -> dict[str, float]:
    """Elo points, best first, of all people's wins and ties, each (P, V, V), together."""
    points, _ = _fit(wins.sum(0, keepdims=True), ties.sum(0, keepdims=True), prior_votes)
    return {variants[row]: float(points[0, row]) for row in np.argsort(-points[0], kind="stable")}


def _matrices(counts: PersonCounts) -> tuple[np.ndarray, np.ndarray]:
    """(P, V, V) wins of the row's variant over the column's, and (P, V, V) ties, told on both sides."""
    variants = len(counts.variants)
    wins, ties = np.zeros((2, len(counts.people), variants, variants))
    straight = (counts.person, counts.variant_a, counts.variant_b)
    turned = (counts.person, counts.variant_b, counts.variant_a)
    wins_a, wins_b, tied, both_bad = counts.outcomes.T
    np.add.at(wins, straight, wins_a)
    np.add.at(wins, turned, wins_b)
    for cells in (straight, turned):
        np.add.at(ties, cells, tied + both_bad)
    return wins, ties


def _fit(wins: np.ndarray, ties: np.ndarray, prior_votes: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(R, V) Elo points with mean 1000 and (R,) log nu for R tables of wins and ties, each (R, V, V).

    Davidson's model is a multinomial logit in (log s, log nu), so its likelihood is concave: Newton's method.
    """
    rounds, size = wins.shape[:2]
    log_s, log_nu = np.zeros((rounds, size)), np.zeros(rounds)
    others = ~np.eye(size, dtype=bool)
    tied = bool(ties.any())
    wins = wins + others * prior_votes / (3 if tied else 2)
    ties = ties + others * prior_votes / 3 if tied else ties
    votes = wins + wins.transpose(0, 2, 1) + ties  # (R, V, V)
    for _ in range(NEWTON_STEPS if size else 0):
        gap = log_s[:, :, None] - log_s[:, None, :]
        win = np.exp(gap / 2)  # relative to sqrt(s_i * s_j)
        tie = np.broadcast_to(np.exp(log_nu)[:, None, None] if tied else np.zeros((1, 1, 1)), gap.shape)
        whole = win + 1 / win + tie
        p_win, p_tie = win / whole, tie / whole
        score = p_win + p_tie / 2  # expected score of the row's variant
        gradient = (wins + ties / 2 - votes * score).sum(2)  # (R, V); the diagonal is 0
        spread = votes * (p_win + p_tie / 4 - score**2) * others
        hessian = np.zeros((rounds, size + 1, size + 1))
        hessian[:, :size, :size] = np.eye(size) * spread.sum(2)[:, :, None] - spread + 1.0  # + 1: the mean stays 0
        hessian[:, :size, size] = hessian[:, size, :size] = (votes * p_tie * (0.5 - score) * others).sum(2)
        hessian[:, size, size] = (votes * p_tie * (1 - p_tie) * others).sum((1, 2)) / 2 if tied else 1.0
        tie_gradient = ((ties - votes * p_tie) * others).sum((1, 2)) / 2
        step = np.linalg.solve(hessian, np.concatenate([gradient, tie_gradient[:, None]], 1)[..., None])[..., 0]
        step = np.clip(step, -2.0, 2.0)
        log_s, log_nu = log_s + step[:, :size], log_nu + step[:, size]
        if np.abs(step).max() < 1e-10:
            break
    log_s = log_s - log_s.mean(1, keepdims=True) if size else log_s
    return ELO_MEAN + ELO_POINTS * log_s, log_nu if tied else np.full(rounds, -np.inf)
