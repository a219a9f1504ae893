"""The design of a study: balance, sides, repeats and checks, decided by pure functions."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from collection.studies.assignment import (
    REPEAT_GAP,
    TRAINING_BALLOTS,
    Asked,
    Candidate,
    choose_check,
    choose_pair,
    choose_repeat,
    first_stands_left,
    plan_items,
    schedule,
    seeded,
)
from collection.studies.prompts import Prompt
from tests.collection.study_helpers import make_plan

PROMPTS = [Prompt(f"prompt {number}") for number in range(30)]


def test_items_are_drawn_with_the_seed_and_their_seeds_cannot_be_guessed() -> None:
    plan = make_plan(max_prompts=10, seeds_per_prompt=2, check_share=0.2)
    items = plan_items(plan, PROMPTS)
    assert items == plan_items(plan, PROMPTS)
    assert items != plan_items(make_plan(max_prompts=10, seeds_per_prompt=2, check_share=0.2, seed=1), PROMPTS)
    kinds = Counter(item.kind for item in items)
    assert kinds == {"training": TRAINING_BALLOTS, "check": 4, "normal": 20}
    assert [item.number for item in items] == list(range(len(items)))
    assert len({item.seed for item in items}) == len(items)
    assert min(item.seed for item in items) > 2**40
    per_prompt = Counter(item.prompt.text for item in items if item.kind == "normal")
    assert set(per_prompt.values()) == {2}


def test_everybody_gets_their_share_of_repeats_and_checks_in_an_order_of_their_own() -> None:
    plan = make_plan(ballots_per_participant=30, repeat_share=0.1, check_share=0.1)
    schedules = {number: schedule(plan, seeded(0, number)) for number in range(50)}
    for kinds in schedules.values():
        assert kinds[:2] == ["training", "training"]
        assert Counter(kinds[2:]) == {"normal": 24, "repeat": 3, "check": 3}
        assert "repeat" not in kinds[2 : 2 + REPEAT_GAP + 1]
        assert kinds[2] == "normal"
    assert len({tuple(kinds) for kinds in schedules.values()}) > 40
    assert schedule(make_plan(training=False, ballots_per_participant=1), seeded(0)) == ["normal"]


def test_the_least_voted_pair_comes_first_and_open_questions_count() -> None:
    pairs = [Candidate("a", "1", 2), Candidate("b", "2", 1, open=1), Candidate("c", "3", 1)]
    assert choose_pair(pairs, (), 5, 0.0, random.Random(0)) == "c"
    drawn = {choose_pair([*pairs[:2]], (), 5, 0.0, random.Random(seed)) for seed in range(30)}
    assert drawn == {"a", "b"}


def test_among_equals_a_new_item_comes_first() -> None:
    pairs = [Candidate("a", "1", 0), Candidate("b", "2", 0)]
    assert {choose_pair(pairs, {"1"}, 5, 0.0, random.Random(seed)) for seed in range(20)} == {"b"}


def test_a_random_share_visits_pairs_that_are_not_the_least_voted() -> None:
    pairs = [Candidate("a", "1", 0), Candidate("b", "2", 4)]
    drawn = Counter(choose_pair(pairs, (), 5, 0.2, random.Random(seed)) for seed in range(2000))
    assert 140 < drawn["b"] < 260


def test_no_pair_is_asked_about_beyond_its_votes_but_one_more_may_be_asked_in_vain() -> None:
    rng = random.Random(0)
    assert choose_pair([Candidate("a", "1", 5)], (), 5, 0.5, rng) is None
    assert choose_pair([Candidate("a", "1", 4, open=1)], (), 5, 0.5, rng) == "a"
    assert choose_pair([Candidate("a", "1", 4, open=2)], (), 5, 0.5, rng) is None
    assert choose_pair([], (), 5, 0.5, rng) is None


def test_a_repeat_is_an_answered_normal_pair_of_long_enough_ago_and_only_once() -> None:
    def asked(number: int, **changes: object) -> Asked:
        return Asked(
            **{"ballot_id": f"b{number}", "pair_id": f"p{number}", "number": number, "kind": "normal", "answered": True}
            | changes
        )  # type: ignore[arg-type]

    last = asked(10)
    rng = random.Random(0)
    assert choose_repeat([asked(1), last], rng) == asked(1)
    for unfit in (
        asked(10 - REPEAT_GAP + 1),
        asked(1, answered=False),
        asked(1, skipped=True),
        asked(1, repeated=True),
        asked(1, kind="check"),
    ):
        assert choose_repeat([unfit, last], rng) is None


def test_a_check_is_never_shown_twice() -> None:
    assert {choose_check(["a", "b"], {"a"}, random.Random(seed)) for seed in range(9)} == {"b"}
    assert choose_check(["a"], {"a"}, random.Random(0)) is None


def test_sides_are_fair_to_every_person_and_every_pair_and_can_be_tossed_again() -> None:
    tosses = {(person, pair): first_stands_left(7, person, pair) for person in range(200) for pair in range(200)}
    assert tosses[3, 4] == first_stands_left(7, 3, 4)
    for fixed in range(2):
        lefts = Counter(key[fixed] for key, left in tosses.items() if left)
        assert min(lefts.values()) > 60  # of 200; five standard deviations are 35
        assert max(lefts.values()) < 140


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_extreme_shares_make_a_schedule(share: float) -> None:
    kinds = schedule(make_plan(ballots_per_participant=20, repeat_share=share, check_share=share), random.Random(0))
    assert len(kinds) == 22
