"""All pairs together on one scale: Davidson's model of Bradley and Terry's with ties.

    P(i beats j) : P(j beats i) : P(tie) = s_i : s_j : nu * sqrt(s_i * s_j),    points = 400 * log10(s) + const

Bradley and Terry, Biometrika 39 (1952); Davidson, JASA 65 (1970). Without ties it is the plain model. Contenders that
no chain of votes connects are on scales of their own, each with its own nu: what is said of one group changes no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from collection.statistics.clusters import Clustered, Spread, two_way
from collection.statistics.counts import Cells, Votes
from collection.statistics.rates import still_missing, win_rates
from collection.types import VoteCount

ELO_POINTS: Final = 400.0 / math.log(10.0)  # ten times the odds are 400 points
ELO_MEAN: Final = 1000.0
NEWTON_STEPS: Final = 100
PRIOR_VOTES: Final = 1.0
NEVER_LOST, NEVER_WON = "one defeat: so far it is not bounded above", "one win: so far it is not bounded below"
UNDECIDED: Final = "votes that prefer one side"


@dataclass(frozen=True)
class Rating:
    """A contender's strength in Elo points (+400 = ten times the odds, mean 1000 in its group), with its 95% interval.

    Points of different groups cannot be compared: nothing connects them. low and high are None where `missing` says
    what an interval still needs.
    """

    variant: str
    points: float
    low: float | None
    high: float | None
    group: int = 0
    votes: int = 0
    missing: str = ""
    contender: str = ""


@dataclass(frozen=True, eq=False)
class Fit:
    """One group's strengths. log_s: (V,) with mean 0 over `core`, the contenders that have neither only won nor only
    lost against the others; inverse: (V + 1, V + 1) of the information on (log s, log nu)."""

    members: np.ndarray  # (V,) places among all contenders
    log_s: np.ndarray
    log_nu: float
    inverse: np.ndarray
    core: np.ndarray  # (V,) bool


def bradley_terry(counts: Sequence[VoteCount], prior_votes: float = PRIOR_VOTES) -> dict[str, float]:
    """Strengths in Elo points, best first, of each group around 1000.

    `prior_votes` imaginary votes of each contender against an average one, spread over the outcomes, keep those finite
    that never lost. They do not grow with the number of contenders. 0 gives the plain maximum likelihood, for which
    each must have won and lost.
    """
    votes = Votes.of_counts(counts)
    points = {
        votes.contenders[place]: ELO_MEAN + ELO_POINTS * float(log_s)
        for fit in fits(votes, prior_votes)
        for place, log_s in zip(fit.members, fit.log_s, strict=True)
    }
    return dict(sorted(points.items(), key=lambda item: -item[1]))


def tie_chance(votes: Votes, prior_votes: float = PRIOR_VOTES) -> float | None:
    """How likely a tie between two equally strong contenders is, nu / (2 + nu), in the group with the most votes; None
    without votes."""
    found = fits(votes, prior_votes)
    nu = math.exp(found[0].log_nu) if found else 0.0
    return nu / (2 + nu) if found else None


def ratings(votes: Votes) -> list[Rating]:
    """Points with their intervals over people and prompts; the group with the most votes first, then best first."""
    found: list[Rating] = []
    for number, fit in enumerate(fits(votes)):
        ours = _rate_group(votes, fit, number)
        found += sorted(ours, key=lambda rating: -rating.points)
    return found


def fits(votes: Votes, prior_votes: float = PRIOR_VOTES) -> list[Fit]:
    """The fit of each group, that with the most votes first."""
    size = len(votes.contenders)
    if not len(votes.by_person.cluster):
        return []
    wins, ties = _matrices(votes.by_person, size)
    groups, of_group = _components(wins + wins.T + ties, directed=False)
    members = [np.flatnonzero(of_group == group) for group in range(groups)]
    members = [some for some in members if len(some) > 1]
    sizes = [(wins[some].sum() + ties[some].sum() / 2) for some in members]
    order = sorted(range(len(members)), key=lambda place: (-sizes[place], place))
    return [_fit_group(wins, ties, members[place], prior_votes) for place in order]


def _rate_group(votes: Votes, fit: Fit, number: int) -> list[Rating]:
    ours = votes.where(*(np.isin(table.first, fit.members) for table in (votes.by_person, votes.by_prompt)))
    people = len(np.unique(ours.by_person.cluster))
    decided = bool(ours.by_person.outcomes[:, :2].any())
    wins, ties = _matrices(ours.by_person, len(votes.contenders))
    by_person, by_prompt = (_Scores.at(fit, table) for table in (ours.by_person, ours.by_prompt))
    found = []
    for place, member in enumerate(fit.members):
        points = ELO_MEAN + ELO_POINTS * float(fit.log_s[place])
        total = round(float(wins[member].sum() + wins[:, member].sum() + ties[member].sum()))
        missing = still_missing(people=people) or ("" if decided else UNDECIDED)
        if not missing and not fit.core[place]:
            missing = _unbounded(wins, ties, fit, place)
        name, low, high = votes.contenders[member], None, None
        if not missing:
            reach = _spread(by_person, by_prompt, fit, place).reach
            bounds = (fit.log_s[place] - reach, fit.log_s[place] + reach)
            if len(fit.members) == 2:
                bounds = _of_two(ours, fit, place)
            low, high = ((ELO_MEAN + ELO_POINTS * bound if math.isfinite(bound) else None) for bound in bounds)
            missing = "" if low is not None else "votes by others: one person or prompt has all there are"
        found.append(Rating(name, points, low, high, number, total, missing))
    return found


def _unbounded(wins: np.ndarray, ties: np.ndarray, fit: Fit, place: int) -> str:
    """What is missing for a contender outside of the core: it stands above or below by votes of one kind only."""
    core = fit.members[fit.core]
    above = fit.log_s[place] >= fit.log_s[fit.core].mean() if len(core) else wins[fit.members[place]].sum() > 0
    return NEVER_LOST if above else NEVER_WON


@dataclass(frozen=True, eq=False)
class _Scores:
    """What the rows of a count table say at a fit, (N,) each: how far wins and ties are from what was expected, and the
    moments of one vote."""

    cells: Cells
    first: np.ndarray  # places in the fit
    second: np.ndarray
    score: np.ndarray
    p_tie: np.ndarray

    @classmethod
    def at(cls, fit: Fit, cells: Cells) -> _Scores:
        first, second = (np.searchsorted(fit.members, side) for side in (cells.first, cells.second))
        return cls(cells, first, second, *_expected(fit.log_s[first] - fit.log_s[second], fit.log_nu))

    def clustered(self, pull: np.ndarray) -> Clustered:
        """By cluster, for the number that the (V + 1,) `pull` makes of a vote's score."""
        gap, by_tie, votes = pull[self.first] - pull[self.second], pull[-1], self.cells.votes
        influence = gap * (self.cells.score - votes * self.score) + by_tie * (self.cells.equal - votes * self.p_tie)
        variance, cross, of_tie = _moments(self.score, self.p_tie)
        information = votes * (gap**2 * variance + 2 * gap * by_tie * cross + by_tie**2 * of_tie)
        share = self.cells.of_clusters(information)
        return Clustered(self.cells.of_clusters(influence), share / share.sum())

    def independent(self, pull: np.ndarray) -> float:
        """The variance of that number if each vote stood for itself."""
        gap, by_tie = pull[self.first] - pull[self.second], pull[-1]
        each = ((1.0, 0.0), (0.0, 0.0), (0.5, 1.0))  # what a win, a loss and a tie say
        numbers = (self.cells.outcomes[:, 0], self.cells.outcomes[:, 1], self.cells.equal)
        return sum(
            float((number * (gap * (worth - self.score) + by_tie * (tied - self.p_tie)) ** 2).sum())
            for number, (worth, tied) in zip(numbers, each, strict=True)
        )


def _spread(people: _Scores, prompts: _Scores, fit: Fit, place: int) -> Spread:
    """Of log s of one member of the core against the core's mean."""
    contrast = -fit.core.astype(float) / fit.core.sum()
    contrast[place] += 1.0
    pull = fit.inverse @ np.append(contrast, 0.0)
    return two_way(people.clustered(pull), prompts.clustered(pull), people.independent(pull))


def _of_two(votes: Votes, fit: Fit, place: int) -> tuple[float, float]:
    """The interval of log s of one of two, which is that of their win rate on another scale: both say the same."""
    (rate,) = win_rates(votes)
    assert rate.low is not None  # whoever asks has seen that people and votes are enough
    assert rate.high is not None
    low, high = (_gap(share, fit.log_nu) / 2 for share in (rate.low, rate.high))
    return (low, high) if rate.variant_a == votes.contenders[fit.members[place]] else (-high, -low)


def _gap(score: float, log_nu: float) -> float:
    """log s_i - log s_j where the first expects this score: `_expected` solved for the gap."""
    if not 0 < score < 1:
        return math.copysign(math.inf, score - 0.5)
    pull = math.exp(log_nu) * (score - 0.5)
    return 2 * math.log((pull + math.sqrt(pull**2 + 4 * score * (1 - score))) / (2 * (1 - score)))


def _expected(gap: np.ndarray, log_nu: float) -> tuple[np.ndarray, np.ndarray]:
    """The expected score of the first, a tie being half a win, and the chance of a tie, from log s_i - log s_j."""
    win = np.exp(np.clip(gap, -500, 500) / 2)  # relative to sqrt(s_i * s_j)
    nu = math.exp(log_nu)
    whole = win + 1 / win + nu
    return (win + nu / 2) / whole, nu / whole


def _moments(score: np.ndarray, p_tie: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vote's information: variance of the score, covariance with being a tie, variance of being a tie."""
    return score - p_tie / 4 - score**2, p_tie * (0.5 - score), p_tie * (1 - p_tie)


def _matrices(cells: Cells, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(V, V) wins of the row's contender over the column's, and (V, V) ties, told on both sides."""
    wins, ties = np.zeros((2, size, size))
    np.add.at(wins, (cells.first, cells.second), cells.outcomes[:, 0])
    np.add.at(wins, (cells.second, cells.first), cells.outcomes[:, 1])
    np.add.at(ties, (cells.first, cells.second), cells.equal)
    return wins, ties + ties.T


def _core(wins: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """(V,) bool: the contenders with the most votes among which everyone has, by some chain, won and lost.

    Ford, American Mathematical Monthly 64 (1957): between these the likelihood has its maximum at finite strengths.
    """
    groups, of_group = _components(wins + ties, directed=True)
    within = [(wins + ties)[np.ix_(of_group == group, of_group == group)].sum() for group in range(groups)]
    core = of_group == int(np.argmax(within))
    return np.asarray(core if core.sum() > 1 else np.zeros(len(wins), bool))


def _components(edges: np.ndarray, *, directed: bool) -> tuple[int, np.ndarray]:
    """(how many groups, the group of each): those that reach each other along edges (N, N) that are not 0."""
    from scipy.sparse.csgraph import connected_components  # here: it takes a moment that no start of a command should

    return connected_components(edges != 0, directed=directed, connection="strong")


def _fit_group(wins: np.ndarray, ties: np.ndarray, members: np.ndarray, prior_votes: float) -> Fit:
    """Newton's method: Davidson's model is a multinomial logit in (log s, log nu), so its likelihood is concave."""
    wins, ties = (table[np.ix_(members, members)] for table in (wins, ties))
    size, tied, core = len(members), bool(ties.any()), _core(wins, ties)
    first, second = np.nonzero(np.triu(wins + wins.T + ties))
    # The last contender is the average one that the imaginary votes are against; its log s is 0.
    first, second = np.append(first, np.arange(size)), np.append(second, np.full(size, size))
    share = prior_votes / (3 if tied else 2)
    imaginary = np.full(size, share)
    won = np.append(wins[first[:-size], second[:-size]], imaginary)
    lost = np.append(wins[second[:-size], first[:-size]], imaginary)
    equal = np.append(ties[first[:-size], second[:-size]], imaginary * tied)
    log_s, log_nu, information = _newton(
        size, first, second, np.array([won, lost, equal]), tied, anchored=prior_votes > 0
    )
    centre = log_s[core].mean() if core.any() else log_s.mean()
    return Fit(members, log_s - centre, log_nu, np.linalg.pinv(information, hermitian=True), core)


def _newton(
    size: int, first: np.ndarray, second: np.ndarray, outcomes: np.ndarray, tied: bool, *, anchored: bool
) -> tuple[np.ndarray, float, np.ndarray]:
    """(V,) log s, log nu and the (V + 1, V + 1) information at the maximum, from (3, P) wins, losses and ties."""
    log_s, log_nu = np.zeros(size + 1), 0.0 if tied else -math.inf
    won, _, equal = outcomes
    votes = outcomes.sum(0)
    for _ in range(NEWTON_STEPS):
        score, p_tie = _expected(log_s[first] - log_s[second], log_nu)
        variance, cross, of_tie = (votes * moment for moment in _moments(score, p_tie))
        residual = won + equal / 2 - votes * score
        information, gradient = np.zeros((size + 2, size + 2)), np.zeros(size + 2)
        for place, sign in ((first, 1.0), (second, -1.0)):
            np.add.at(gradient, place, sign * residual)
            np.add.at(information, (place, place), variance)
            np.add.at(information, (place, np.full_like(place, size + 1)), sign * cross)
        np.add.at(information, (first, second), -variance)
        np.add.at(information, (second, first), -variance)
        information[size + 1, :-1] = information[:-1, size + 1]
        information[-1, -1], gradient[-1] = (of_tie.sum(), (equal - votes * p_tie).sum()) if tied else (1.0, 0.0)
        kept = np.append(np.arange(size), size + 1)  # the average one stays where it is
        information, gradient = information[np.ix_(kept, kept)], gradient[kept]
        if not anchored:
            information[:size, :size] += 1.0  # the mean stays 0
        step = np.clip(np.linalg.solve(information, gradient), -2.0, 2.0)
        log_s[:size] += step[:size]
        log_nu += step[size] if tied else 0.0
        if np.abs(step).max() < 1e-10:
            break
    return log_s[:size], log_nu, information
