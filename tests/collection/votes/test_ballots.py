"""Pure decisions about what to show."""

from __future__ import annotations

import random
from collections import Counter

from collection.votes.ballots import choose_least_judged, choose_pair, toss_sides


def test_each_order_of_a_pair_is_equally_likely() -> None:
    rng = random.Random(0)
    tosses = Counter(toss_sides(("one", "two"), rng) for _ in range(10_000))
    assert set(tosses) == {("one", "two"), ("two", "one")}
    assert abs(tosses["one", "two"] - 5_000) < 200  # four standard deviations


def test_the_same_seed_makes_the_same_choice() -> None:
    made = [("1", "base", "a"), ("2", "aligned", "b"), ("3", "aligned_npo", "c")]
    assert choose_pair(made, random.Random(5)) == choose_pair(made, random.Random(5))


def test_every_pair_of_different_variants_comes_up_and_no_other() -> None:
    made = [("1", "base", "a"), ("2", "base", "b"), ("3", "aligned", "c"), ("4", "aligned_npo", "c")]
    rng = random.Random(0)
    pairs = {choose_pair(made, rng) for _ in range(200)}
    assert {tuple(sorted(pair)) for pair in pairs if pair} == {("1", "3"), ("2", "3"), ("1", "4"), ("2", "4")}
    assert len(pairs) == 8, "each on both sides"


def test_there_is_no_pair_in_one_variant() -> None:
    assert choose_pair([("1", "base", "a"), ("2", "base", "b")], random.Random(0)) is None


def test_nobody_is_asked_about_two_equal_pictures() -> None:
    assert choose_pair([("1", "aligned", "a"), ("2", "aligned_npo", "a")], random.Random(0)) is None


def test_the_least_judged_come_first_and_ties_are_drawn() -> None:
    rng = random.Random(0)
    counts = [("often", 5), ("never", 0), ("neither", 0)]
    assert {choose_least_judged(counts, rng) for _ in range(50)} == {"never", "neither"}
    assert choose_least_judged([], rng) is None
