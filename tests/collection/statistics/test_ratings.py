"""Statistics on known answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from collection.statistics.ratings import (
    PersonCounts,
    agreement,
    bradley_terry,
    nominal_alpha,
    position_bias,
    power,
    ratings,
    tie_chance,
    wilson_interval,
    win_rates,
)
from collection.types import VoteCount


def by_person(counts: Mapping[str, Sequence[VoteCount]]) -> PersonCounts:
    return PersonCounts.of((person, *count) for person, ours in counts.items() for count in ours)


def test_wilsons_interval_for_eight_of_ten_is_the_published_one() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_wilsons_interval_stays_a_share_at_the_ends() -> None:
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert wilson_interval(20, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_tie_is_half_a_win_for_each() -> None:
    (rate,) = win_rates(by_person({"p": [VoteCount("aligned", "base", wins_a=6, wins_b=2, ties=3, both_bad=1)]}))
    assert (rate.rate, rate.votes) == (8 / 12, 12)
    assert (rate.low, rate.high) == wilson_interval(8, 12)


def test_a_pair_without_votes_has_no_rate() -> None:
    assert win_rates(by_person({"p": [VoteCount("a", "b", 0, 0, 0, 0)]})) == []


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


def test_nothing_comes_of_no_votes() -> None:
    assert bradley_terry([]) == {}
    assert ratings(by_person({}), np.random.default_rng(0)) == []
    assert position_bias(0, 0) is None
    assert agreement([]) is None


def test_intervals_grow_with_disagreement_between_people_not_shrink_with_their_votes() -> None:
    """Two people of a hundred votes each who disagree tell less than a hundred people of two votes each."""
    two = {"p": [VoteCount("a", "b", 100, 0, 0, 0)], "q": [VoteCount("a", "b", 0, 100, 0, 0)]}
    many = {f"p{number}": [VoteCount("a", "b", 2 * (number % 2), 2 - 2 * (number % 2), 0, 0)] for number in range(100)}
    width = {}
    for name, votes in (("two", two), ("many", many)):
        first = ratings(by_person(votes), np.random.default_rng(0))[0]
        assert first.low is not None
        assert first.high is not None
        width[name] = first.high - first.low
    assert width["two"] > 5 * width["many"]


def test_ratings_are_repeatable_and_one_person_gives_no_interval() -> None:
    votes = {"p": [VoteCount("a", "b", 3, 1, 1, 0)], "q": [VoteCount("a", "b", 2, 2, 0, 0)]}
    assert ratings(by_person(votes), np.random.default_rng(1)) == ratings(by_person(votes), np.random.default_rng(1))
    assert all(rating.low is None for rating in ratings(by_person({"p": votes["p"]}), np.random.default_rng(1)))


def test_fair_sides_have_half_in_their_interval_and_a_bias_has_not() -> None:
    fair, biased = position_bias(52, 48), position_bias(80, 20)
    assert fair is not None
    assert biased is not None
    assert fair.low < 0.5 < fair.high
    assert biased.low > 0.5
    assert biased.left_rate == 0.8


def test_krippendorffs_alpha_is_that_of_his_own_examples() -> None:
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): example A (two observers, two values) has
    alpha 0.095, example C (four observers, five values, gaps) 0.743."""
    meg, owen = "0100000010", "1110010000"
    example_a = [[pair.count(value) for value in "01"] for pair in zip(meg, owen, strict=True)]
    assert nominal_alpha(np.array(example_a, float)) == pytest.approx(0.095, abs=5e-4)
    observers = ("123321412   ", "1233224125 3", " 3332342251 ", "12332441251 ")
    units = ["".join(values).replace(" ", "") for values in zip(*observers, strict=True)]
    example_c = [[unit.count(value) for value in "12345"] for unit in units if len(unit) > 1]
    assert nominal_alpha(np.array(example_c, float)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_from_counts_is_evalicas_when_a_coin_names_the_two_pictures() -> None:
    import evalica
    import pandas as pd

    rng = np.random.default_rng(3)
    counts, table = [], {}
    for number in range(400):
        better, coin = rng.random(), rng.random() < 0.5
        verdicts = rng.choice(3, size=5, p=[0.8 * better, 0.8 * (1 - better), 0.2])
        counts.append(VoteCount("a", "b", *(int((verdicts == value).sum()) for value in range(3)), 0))
        table[number] = [float({0: 1, 1: 0}.get(v, v)) if coin else float(v) for v in verdicts]
    theirs = float(evalica.alpha(pd.DataFrame(table), distance="nominal").alpha)
    assert agreement(counts) == pytest.approx(theirs, abs=2e-3)


def test_full_agreement_is_one_and_pairs_seen_by_one_person_say_nothing() -> None:
    assert agreement([VoteCount("a", "b", 2, 0, 0, 0), VoteCount("a", "b", 0, 0, 1, 1)]) == pytest.approx(1.0)
    assert agreement([VoteCount("a", "b", 1, 0, 0, 0), VoteCount("a", "b", 0, 0, 1, 0)]) is None


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
    assert tie_chance(counts, prior_votes=0.0) == pytest.approx(math.exp(best[2]) / (2 + math.exp(best[2])), abs=1e-5)


def test_a_vote_of_the_same_person_counts_for_less_than_one_of_another() -> None:
    one_mind = {
        f"p{number}": [VoteCount("a", "b", 10 * (number % 2), 10 - 10 * (number % 2), 0, 0)] for number in range(20)
    }
    own_minds = {f"p{number}": [VoteCount("a", "b", 5, 5, 0, 0)] for number in range(20)}
    (together,), (apart,) = win_rates(by_person(one_mind)), win_rates(by_person(own_minds))
    assert together.design_effect == pytest.approx(10 * 20 / 19, rel=1e-6)
    assert apart.design_effect == 1.0
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_power_asks_for_the_votes_of_the_textbook() -> None:
    """0.6 against 0.5: (1.96 + 0.8416)^2 * 0.6 * 0.4 / 0.1^2 = 188.4 votes."""
    counts = {f"p{number}": [VoteCount("a", "b", int(number < 12), int(number >= 12), 0, 0)] for number in range(20)}
    (rate,) = win_rates(by_person(counts))
    (advice,) = power([rate], [VoteCount("a", "b", 12, 8, 0, 0)])
    assert advice.more == math.ceil(188.4 * rate.design_effect) - 20
    clear = {f"p{number}": [VoteCount("a", "b", 1, 0, 0, 0)] for number in range(40)}
    assert power(win_rates(by_person(clear)), [VoteCount("a", "b", 40, 0, 0, 0)])[0].more == 0
    even = {f"p{number}": [VoteCount("a", "b", number % 2, 1 - number % 2, 0, 0)] for number in range(4)}
    assert power(win_rates(by_person(even)), [VoteCount("a", "b", 2, 2, 0, 0)])[0].more is None
