"""Statistics on known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from collection.records import Judgement, Verdict, VoteCount
from collection.statistics import (
    agreement,
    bradley_terry,
    fold_outcomes,
    position_bias,
    ratings,
    wilson_interval,
    win_rates,
)


def test_wilsons_interval_for_eight_of_ten_is_the_published_one() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)


def test_wilsons_interval_stays_a_share_at_the_ends() -> None:
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert wilson_interval(20, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_outcomes_add_up_whichever_side_each_variant_stood_on() -> None:
    rows = [
        ("base", "aligned", "left", 3),
        ("aligned", "base", "left", 5),
        ("aligned", "base", "right", 2),
        ("base", "aligned", "tie", 4),
        ("aligned", "base", "both_bad", 1),
        ("aligned", "base", "skip", 9),
    ]
    assert fold_outcomes(rows) == [VoteCount("aligned", "base", wins_a=5, wins_b=5, ties=4, both_bad=1)]


def test_a_tie_is_half_a_win_for_each() -> None:
    (rate,) = win_rates([VoteCount("aligned", "base", wins_a=6, wins_b=2, ties=3, both_bad=1)])
    assert (rate.rate, rate.votes) == (8 / 12, 12)
    assert (rate.low, rate.high) == wilson_interval(8, 12)
    assert VoteCount("a", "b", 6, 2, 3, 1).flipped() == VoteCount("b", "a", 2, 6, 3, 1)


def test_a_pair_without_votes_has_no_rate() -> None:
    assert win_rates([VoteCount("a", "b", 0, 0, 0, 0)]) == []


def test_three_wins_to_one_are_odds_of_three() -> None:
    points = bradley_terry([VoteCount("a", "b", 3, 1, 0, 0)], prior_ties=0.0)
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
    points = bradley_terry(counts, prior_ties=0.0)
    strengths = {name: 10 ** ((value - 1000) / 400) for name, value in points.items()}
    assert strengths == pytest.approx({"A": 0.640, "B": 1.043, "C": 0.660, "D": 2.270}, abs=1e-3)
    assert list(points) == ["D", "B", "C", "A"]


def test_a_variant_that_never_lost_stays_finite() -> None:
    points = bradley_terry([VoteCount("a", "b", 5, 0, 0, 0), VoteCount("c", "d", 1, 0, 0, 0)])
    assert all(math.isfinite(value) for value in points.values())
    assert points["a"] > points["b"]


def test_nothing_comes_of_no_votes() -> None:
    assert bradley_terry([]) == {}
    assert ratings({}, np.random.default_rng(0)) == []
    assert position_bias(0, 0) is None
    assert agreement([]) is None


def test_intervals_grow_with_disagreement_between_people_not_shrink_with_their_votes() -> None:
    """Two people of a hundred votes each who disagree tell less than a hundred people of two votes each."""
    two = {"p": [VoteCount("a", "b", 100, 0, 0, 0)], "q": [VoteCount("a", "b", 0, 100, 0, 0)]}
    many = {f"p{number}": [VoteCount("a", "b", 2 * (number % 2), 2 - 2 * (number % 2), 0, 0)] for number in range(100)}
    width = {}
    for name, votes in (("two", two), ("many", many)):
        first = ratings(votes, np.random.default_rng(0))[0]
        assert first.low is not None
        assert first.high is not None
        width[name] = first.high - first.low
    assert width["two"] > 5 * width["many"]


def test_ratings_are_repeatable_and_one_person_gives_no_interval() -> None:
    votes = {"p": [VoteCount("a", "b", 3, 1, 1, 0)], "q": [VoteCount("a", "b", 2, 2, 0, 0)]}
    assert ratings(votes, np.random.default_rng(1)) == ratings(votes, np.random.default_rng(1))
    assert all(rating.low is None for rating in ratings({"p": votes["p"]}, np.random.default_rng(1)))


def test_fair_sides_have_half_in_their_interval_and_a_bias_has_not() -> None:
    fair, biased = position_bias(52, 48), position_bias(80, 20)
    assert fair is not None
    assert biased is not None
    assert fair.low < 0.5 < fair.high
    assert biased.low > 0.5
    assert biased.left_rate == 0.8


def test_krippendorffs_alpha_is_that_of_his_own_example() -> None:
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example A: alpha = 0.095."""
    observers = {"Meg": "0100000010", "Owen": "1110010000"}
    verdicts: dict[str, Verdict] = {"0": "first", "1": "second"}
    judgements = [
        Judgement(f"unit {unit}", name, verdicts[code])
        for name, codes in observers.items()
        for unit, code in enumerate(codes)
    ]
    assert agreement(judgements) == pytest.approx(0.095, abs=1e-3)


def test_full_agreement_is_one_and_pairs_seen_by_one_person_say_nothing() -> None:
    shared = [Judgement(item, person, item) for item in ("first", "tie") for person in "pq"]
    assert agreement(shared) == pytest.approx(1.0)
    assert agreement([Judgement("x", "p", "first"), Judgement("y", "q", "first")]) is None
