"""Win rates, position bias and advice: known answers, another's code, and no word where nothing is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from collection.statistics.clusters import Clustered, two_way
from collection.statistics.rates import Power, position_bias, power, wilson_interval, win_rates
from tests.collection.statistics.tables import alone, votes_of


def test_wilson_interval_is_the_textbooks() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611252), abs=1e-6)
    assert wilson_interval(20, 20) == pytest.approx((0.8388748, 1.0), abs=1e-6)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_tie_is_half_a_win_and_both_bad_is_a_tie() -> None:
    (rate,) = win_rates(votes_of(alone("aligned", "base", "aaaaaabbtttn")))
    assert (rate.rate, rate.votes, rate.people, rate.prompts) == (8 / 12, 12, 12, 1)
    assert win_rates(votes_of([])) == []


def test_equal_clusters_give_the_t_interval_of_their_means() -> None:
    """With as many votes each, the cluster-robust variance is that of the people's means, with K - 1 degrees."""
    rng = np.random.default_rng(0)
    means = rng.random(7)
    people = Clustered((means - means.mean()) / 7, np.full(7, 1 / 7))
    spread = people.spread()
    assert spread.variance == pytest.approx(means.var(ddof=1) / 7)
    assert spread.df == pytest.approx(6)


def test_uneven_activity_leaves_fewer_degrees_of_freedom() -> None:
    """By simulation: with one person who gave half of the votes of 20, the variance is as unsure as with this many."""
    share = np.array([10.0, *[10 / 19] * 19]) / 20
    rng, draws = np.random.default_rng(1), []
    for errors in rng.normal(0, np.sqrt(share * (share + 1 / 20)), (20_000, 20)):
        draws.append(Clustered(errors - share * errors.sum(), share).spread().variance)
    expected = 2 * np.mean(draws) ** 2 / np.var(draws)  # of a scaled chi-square
    assert Clustered(np.zeros(20), share).spread().df == pytest.approx(expected, rel=0.05)
    assert expected < 4


def test_the_two_way_variance_is_that_of_a_plain_loop_over_pairs_of_votes() -> None:
    """Cameron, Gelbach and Miller: all products of errors of votes that share a person or a prompt; without the
    corrections for few clusters, which this takes out again."""
    rng = np.random.default_rng(2)
    people, prompts = np.divmod(np.arange(12 * 15), 15)
    taste, ease = rng.normal(0, 1, 12), rng.normal(0, 1, 15)
    error = (rng.normal(0, 1, 180) + taste[people] + ease[prompts]) / 180
    error -= error.mean()
    together = (people[:, None] == people) | (prompts[:, None] == prompts)
    expected = (np.outer(error, error) * together).sum()
    (by_person, by_prompt), independent = (
        [
            Clustered(np.bincount(which, error), np.full(count, 1 / count))
            for which, count in ((people, 12), (prompts, 15))
        ],
        (error**2).sum(),
    )
    corrected = 12 / 11 * (by_person.influence**2).sum() + 15 / 14 * (by_prompt.influence**2).sum() - independent
    found = two_way(by_person, by_prompt, independent)
    assert found.variance == pytest.approx(corrected)
    assert found.variance == pytest.approx(expected, rel=0.1)


def test_a_vote_of_the_same_person_counts_for_less_than_one_of_another() -> None:
    one_mind = votes_of(alone("a", "b", "ab" * 100, people=20))
    own_minds = votes_of(alone("a", "b", "a" * 100 + "b" * 100, people=20))
    (together,), (apart,) = win_rates(one_mind), win_rates(own_minds)
    assert together.design_effect == pytest.approx(10 * 20 / 19, rel=1e-6)
    assert apart.design_effect == 1.0
    assert width(together) > 2.5 * width(apart)


def test_so_does_a_vote_on_the_same_prompt() -> None:
    """Thirty people who agree about each of four prompts know nothing of a fifth."""
    said = [
        (f"person {person}", f"prompt {prompt}", "a", "b", "a" if prompt < 3 else "b")
        for person in range(30)
        for prompt in range(4)
    ]
    (few,) = win_rates(votes_of(said))
    many = [(person, f"{prompt} of {person}", a, b, choice) for person, prompt, a, b, choice in said]
    (own,) = win_rates(votes_of(many))
    assert width(few) > 2 * width(own)
    assert few.low is not None
    assert few.low < 0.5


@pytest.mark.parametrize(("choices", "people"), [("aa", 2), ("tt", 2), ("a" * 40, 2), ("ab" * 50, 1)])
def test_fewer_than_three_people_get_no_interval_but_what_is_missing(choices: str, people: int) -> None:
    (rate,) = win_rates(votes_of(alone("a", "b", choices, people=people)))
    assert (rate.low, rate.high) == (None, None)
    assert rate.missing == ("1 more person" if people == 2 else "2 more people")


@pytest.mark.parametrize("choices", ["a" * 12, "b" * 12, "t" * 12])
@pytest.mark.parametrize("people", [3, 12])
def test_votes_that_are_all_alike_are_not_sure_to_the_last_digit(choices: str, people: int) -> None:
    (rate,) = win_rates(votes_of(alone("a", "b", choices, prompts=4, people=people)))
    assert rate.low is not None
    assert rate.high is not None
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert rate.high - rate.low > 0.2


def test_whoever_always_clicks_left_is_one_person_and_not_as_many_as_their_votes() -> None:
    """Thirty votes of one clicker among four people who are fair."""
    said = alone("a", "b", "a" * 30, prompts=10, people=1)
    said += [(f"other {place % 4}", f"prompt {place % 10}", "a", "b", "ab"[place // 4 % 2]) for place in range(40)]
    bias = position_bias(votes_of(said))
    assert bias is not None
    assert bias.left_rate == 50 / 70
    assert bias.low is not None
    assert bias.low < 0.5, "told from one person, it would be a bias of everybody"
    assert wilson_interval(50, 70)[0] > 0.5
    assert position_bias(votes_of(alone("a", "b", "ttt"))) is None


def test_fair_sides_have_half_in_their_interval_and_a_bias_has_not() -> None:
    fair, biased = (
        position_bias(votes_of(alone("a", "b", choices, prompts=20)))
        for choices in ("a" * 52 + "b" * 48, "a" * 80 + "b" * 20)
    )
    assert fair is not None
    assert biased is not None
    assert fair.low is not None
    assert fair.high is not None
    assert biased.low is not None
    assert fair.low < 0.5 < fair.high
    assert biased.low > 0.5
    assert biased.left_rate == 0.8


def test_power_asks_for_the_votes_of_the_textbook() -> None:
    """0.6 against 0.5: (1.96 + 0.8416)^2 * 0.6 * 0.4 / 0.1^2 = 188.4 votes; t in place of 1.96, and the variance at
    one half for the part of the test, ask for somewhat more."""
    (rate,) = win_rates(votes_of(alone("a", "b", "a" * 120 + "b" * 80)))
    assert rate.variance == pytest.approx(0.24 / 199)
    (few,) = win_rates(votes_of(alone("a", "b", "a" * 12 + "b" * 8)))
    (advice,) = power([few])
    assert advice.more is not None
    wanted = (2.093024 * math.sqrt(0.25) + 0.8416212 * math.sqrt(0.24)) ** 2 / 0.01 * 20 / 19
    assert advice.more == math.ceil(wanted) - 20


def test_there_is_no_advice_from_next_to_nothing() -> None:
    for choices in ("a", "aa", "aaa", "t", "aaaaaaaaa"):
        (advice,) = power(win_rates(votes_of(alone("a", "b", choices, prompts=3))))
        assert advice.more is None
        assert "more vote" in advice.missing
    assert power(win_rates(votes_of(alone("a", "b", "t"))))[0].missing == "2 more people and 9 more votes"


def test_advice_never_says_that_one_more_vote_will_do_again_and_again() -> None:
    """At 64% from 21 to 42 votes the page said "about 1 more vote" twenty times."""
    for votes in range(11, 43):
        wins = round(0.64 * votes)
        said = alone("a", "b", "a" * wins + "b" * (votes - wins), prompts=votes)
        (rate,) = win_rates(votes_of(said))
        (advice,) = power([rate])
        assert rate.low is not None
        assert (advice.more == 0) == (rate.low > 0.5)
        assert advice.more == 0 or (advice.more or 0) > 20


def test_an_even_result_says_when_it_would_mean_that_both_are_alike() -> None:
    (few,) = power(win_rates(votes_of(alone("a", "b", "ab" * 10, prompts=20))))
    assert few.more is None
    assert "to see 55% against 45%" in few.missing
    many = power(win_rates(votes_of(alone("a", "b", "ab" * 1000, prompts=101))))
    assert many == [Power("a", "b", None)]


def width(rate: object) -> float:
    low, high = rate.low, rate.high  # type: ignore[attr-defined]
    return float(high - low)
