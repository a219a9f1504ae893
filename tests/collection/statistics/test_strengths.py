"""Strengths: known answers, other people's code, and nothing that unrelated votes could change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from collection.statistics.counts import Votes
from collection.statistics.rates import win_rates
from collection.statistics.strengths import bradley_terry, fits, ratings, tie_chance
from collection.types import VoteCount
from tests.collection.statistics.tables import alone, votes_of


def test_three_wins_to_one_are_odds_of_three() -> None:
    points = bradley_terry([VoteCount("a", "b", 3, 1, 0, 0)], prior_votes=0.0)
    assert points["a"] - points["b"] == pytest.approx(400 * math.log10(3), abs=1e-3)
    assert sum(points.values()) / 2 == pytest.approx(1000)


def test_bradley_terry_gives_the_strengths_of_a_published_example() -> None:
    """The four teams of Wikipedia's "Bradley-Terry model": strengths 0.640, 1.043, 0.660, 2.270."""
    counts = [
        VoteCount("A", "B", 2, 3, 0, 0),
        VoteCount("A", "D", 1, 4, 0, 0),
        VoteCount("B", "C", 5, 3, 0, 0),
        VoteCount("C", "D", 1, 3, 0, 0),
    ]
    points = bradley_terry(counts, prior_votes=0.0)
    strengths = {name: 10 ** ((value - 1000) / 400) for name, value in points.items()}
    assert strengths == pytest.approx({"A": 0.640, "B": 1.043, "C": 0.660, "D": 2.270}, abs=1e-3)
    assert list(points) == ["D", "B", "C", "A"]


def test_a_variant_that_never_lost_stays_finite() -> None:
    points = bradley_terry([VoteCount("a", "b", 5, 0, 0, 0), VoteCount("c", "d", 1, 0, 0, 0)])
    assert all(math.isfinite(value) for value in points.values())
    assert points["a"] > points["b"]


def test_without_ties_the_strengths_are_evalicas() -> None:
    import evalica

    rng = np.random.default_rng(1)
    counts = [
        VoteCount(a, b, *map(int, rng.integers(5, 60, 2)), 0, 0)
        for a, b in [("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")]
    ]
    first = [name for count in counts for name in (count.variant_a, count.variant_b)]
    second = [name for count in counts for name in (count.variant_b, count.variant_a)]
    weights = [wins for count in counts for wins in (count.wins_a, count.wins_b)]
    fit = evalica.bradley_terry(
        first, second, [evalica.Winner.X] * len(first), weights=weights, tolerance=1e-12, limit=10_000
    )
    log_odds = np.log(fit.scores.to_dict()["a"] / fit.scores)
    ours = bradley_terry(counts, prior_votes=0.0)
    for name, gap in log_odds.items():
        assert (ours["a"] - ours[name]) / 400 * math.log(10) == pytest.approx(gap, abs=1e-3)


def test_strengths_with_ties_have_the_greatest_likelihood_of_davidsons_model() -> None:
    """Found again by a general optimiser on the likelihood as Davidson (1970) writes it."""
    from scipy.optimize import minimize

    counts = [VoteCount("a", "b", 30, 20, 15, 5), VoteCount("a", "c", 40, 10, 8, 2), VoteCount("b", "c", 33, 17, 9, 1)]

    def negative_log_likelihood(values: np.ndarray) -> float:
        strengths, nu = (
            dict(zip("abc", np.exp([*values[:2], -values[0] - values[1]]), strict=True)),
            math.exp(values[2]),
        )
        total = 0.0
        for count in counts:
            one, other = strengths[count.variant_a], strengths[count.variant_b]
            tie = nu * math.sqrt(one * other)
            seen = (count.wins_a, count.wins_b, count.ties + count.both_bad)
            chances = np.array([one, other, tie]) / (one + other + tie)
            total -= float(np.array(seen) @ np.log(chances))
        return total

    best = minimize(negative_log_likelihood, np.zeros(3), tol=1e-14).x
    points = bradley_terry(counts, prior_votes=0.0)
    assert points["a"] - 1000 == pytest.approx(400 / math.log(10) * best[0], abs=0.01)
    assert points["b"] - 1000 == pytest.approx(400 / math.log(10) * best[1], abs=0.01)
    assert tie_chance(Votes.of_counts(counts), prior_votes=0.0) == pytest.approx(
        math.exp(best[2]) / (2 + math.exp(best[2])), abs=1e-5
    )


def test_unrelated_votes_change_nothing() -> None:
    """A record of 12 to 4 was 178 points alone and 59 beside 60 models that met neither."""
    ours = [VoteCount("A", "B", 12, 4, 0, 0)]
    others = [VoteCount(f"M{place}", f"M{(place + 1) % 60}", 6, 5, 3, 0) for place in range(60)]
    alone_points, together = bradley_terry(ours), bradley_terry(ours + others)
    assert together["A"] - together["B"] == pytest.approx(alone_points["A"] - alone_points["B"], abs=1e-6)
    assert alone_points["A"] - alone_points["B"] == pytest.approx(400 * math.log10(3), rel=0.15)


def test_related_ones_that_were_met_leave_a_record_nearly_as_it_is() -> None:
    """The prior is one vote for each contender, however many there are."""
    ours = [VoteCount("A", "B", 120, 40, 0, 0)]
    others = [VoteCount("A", f"M{place:02d}", 30, 30, 0, 0) for place in range(60)]
    points = bradley_terry(ours + others)
    assert points["A"] - points["B"] == pytest.approx(400 * math.log10(3), rel=0.02)


def test_groups_that_no_vote_connects_are_ranked_apart() -> None:
    said = alone("a", "b", "aab" * 10, prompts=10) + alone("c", "d", "cd".replace("c", "a").replace("d", "b") * 3)
    found = ratings(votes_of(said))
    assert [(rating.variant, rating.group) for rating in found] == [("a", 0), ("b", 0), ("c", 1), ("d", 1)]
    for group in (0, 1):
        assert np.mean([rating.points for rating in found if rating.group == group]) == pytest.approx(1000)


def test_one_that_never_lost_is_said_to_be_unbounded_and_spoils_no_others_interval() -> None:
    said = alone("a", "b", "aab" * 20, prompts=15) + alone("b", "c", "aaabb" * 10, prompts=15)
    before = {rating.variant: rating for rating in ratings(votes_of(said))}
    after = {rating.variant: rating for rating in ratings(votes_of([*said, *alone("a", "z", "bb")]))}
    assert after["z"].low is None
    assert after["z"].missing.startswith("one defeat")
    for name in "abc":
        assert (after[name].low, after[name].high) == pytest.approx((before[name].low, before[name].high), abs=12)


def test_two_unanimous_votes_and_nothing_but_ties_give_no_interval() -> None:
    for choices, missing in (("aa", "1 more person"), ("aaaaa", "one defeat"), ("ttttt", "votes that prefer one side")):
        for rating in ratings(votes_of(alone("a", "b", choices, prompts=5))):
            assert rating.low is None
            assert rating.high is None
            assert rating.missing.startswith((missing, "one win"))


def test_strengths_do_not_tell_apart_what_the_win_rate_cannot() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        choices = "".join(rng.choice(list("abt"), size=40, p=[0.5, 0.3, 0.2]))
        votes = votes_of(alone("a", "b", choices, prompts=8, people=10))
        (rate,), (best, _) = win_rates(votes), ratings(votes)
        assert rate.low is not None
        assert rate.high is not None
        assert best.low is not None
        assert (best.low > 1000) == (not rate.low <= 0.5 <= rate.high)


def test_the_information_is_the_curvature_of_the_likelihood() -> None:
    """By finite differences of what a general optimiser maximised above."""
    counts = [VoteCount("a", "b", 30, 20, 15, 5), VoteCount("a", "c", 40, 10, 8, 2), VoteCount("b", "c", 33, 17, 9, 1)]
    (fit,) = fits(Votes.of_counts(counts), prior_votes=0.0)

    def log_likelihood(values: np.ndarray) -> float:
        total = 0.0
        for (first, second), count in zip(((0, 1), (0, 2), (1, 2)), counts, strict=True):
            parts = np.array([values[first], values[second], values[3] + (values[first] + values[second]) / 2])
            seen = np.array([count.wins_a, count.wins_b, count.ties + count.both_bad])
            total += float(seen @ (parts - np.log(np.exp(parts).sum())))
        return total

    at, step = np.array([*fit.log_s, fit.log_nu]), 1e-4
    around = np.eye(4) * step
    curvature = np.array(
        [
            [
                log_likelihood(at + one + other)
                - log_likelihood(at + one - other)
                - log_likelihood(at - one + other)
                + log_likelihood(at - one - other)
                for other in around
            ]
            for one in around
        ]
    ) / (-4 * step**2)
    curvature[:3, :3] += 1.0  # the mean is held at 0
    assert np.linalg.inv(curvature) == pytest.approx(fit.inverse, abs=1e-4)


def test_intervals_grow_with_disagreement_between_people_not_shrink_with_their_votes() -> None:
    """Four people of fifty votes each who disagree tell less than a hundred people of two votes each."""
    few = [
        (f"p{person}", f"q{vote}", "a", "b", "ab"[person % 2] if vote else "ba"[person % 2])
        for person in range(4)
        for vote in range(50)
    ]
    many = alone("a", "b", "ab" * 100, prompts=51, people=200)
    (wide, *_), (narrow, *_) = ratings(votes_of(few)), ratings(votes_of(many))
    assert wide.low is not None
    assert wide.high is not None
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_nothing_comes_of_no_votes() -> None:
    assert bradley_terry([]) == {}
    assert ratings(votes_of([])) == []
    assert tie_chance(votes_of([])) is None
