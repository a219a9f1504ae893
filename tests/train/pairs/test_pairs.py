"""Reversal, the tie policy, and which pairs fit in one batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collection.store import Store
from npo_core.errors import InputError
from tests.collection.helpers import cast, open_store
from tests.tiny import tiny_family
from tests.train.helpers import random_pairs, vote_in_store
from train.pairs.pairs import (
    PairSet,
    VoteRule,
    from_store,
    hash_pairs,
    reverse_pairs,
    sources_of,
    split_by_prompt,
    usable,
    weigh_pairs,
)


def test_reversing_exchanges_the_pictures_and_nothing_else() -> None:
    (pair,) = random_pairs(1)
    (reversed_pair,) = reverse_pairs([pair])
    assert reversed_pair.preferred is pair.rejected
    assert reversed_pair.rejected is pair.preferred
    assert (reversed_pair.prompt, reversed_pair.source) == (pair.prompt, pair.source)


def test_reversing_twice_gives_the_same_pairs() -> None:
    pairs = random_pairs(5)
    assert hash_pairs(reverse_pairs(reverse_pairs(pairs))) == hash_pairs(pairs)
    assert hash_pairs(reverse_pairs(pairs)) != hash_pairs(pairs)


def test_ties_both_bad_and_skips_are_left_out_and_counted(tmp_path: Path) -> None:
    family = tiny_family(tmp_path)
    with open_store(tmp_path) as store:
        vote_in_store(store, family, "lrttblrs")
        found = from_store(store, family.name)
    assert len(found.pairs) == 4
    assert found.dropped == {"tie": 2, "both_bad": 1, "skip": 1}


def test_the_picked_side_is_the_preferred_one(tmp_path: Path) -> None:
    family = tiny_family(tmp_path)
    with open_store(tmp_path) as store:
        vote_in_store(store, family, "l")
        vote_in_store(store, family, "r")
        first, second = from_store(store, family.name).pairs
    np.testing.assert_array_equal(first.preferred, second.rejected)
    np.testing.assert_array_equal(first.rejected, second.preferred)


def test_a_vote_that_went_missing_is_said_when_a_run_goes_on(tmp_path: Path) -> None:
    family = tiny_family(tmp_path)
    with open_store(tmp_path) as store:
        vote_in_store(store, family, "ll")
        votes = [pair.source for pair in from_store(store, family.name).pairs]
        assert [pair.source for pair in from_store(store, family.name, only_votes=votes[::-1]).pairs] == votes[::-1]
        with pytest.raises(InputError, match="1 of the 3 picks"):
            from_store(store, family.name, only_votes=[*votes, "gone"])


def test_broken_latents_and_odd_sizes_are_left_out_and_counted() -> None:
    pairs = random_pairs(5)
    broken = pairs[0].preferred.copy()
    broken[0, 0, 0] = np.nan
    pairs[0] = replace(pairs[0], preferred=broken)
    wide = np.zeros((4, 8, 12), np.float16)
    pairs[1] = replace(pairs[1], preferred=wide, rejected=wide)
    found = usable(PairSet(pairs, {"tie": 3}))
    assert [pair.source for pair in found.pairs] == ["v2", "v3", "v4"]
    assert found.dropped == {"tie": 3, "broken latents": 1, "another size": 1}


def ask_again(store: Store, choices: dict[int, str]) -> None:
    """Another person answers the ballots of comparisons by their number."""
    person = store.create_participant()
    for number, choice in choices.items():
        first, second, _ = (made.id for made in store.comparison(f"comparison {number}"))
        assert first is not None
        assert second is not None
        cast(store, person, first, second, choice)


def test_several_votes_on_the_same_pictures_make_one_pair_by_majority(tmp_path: Path) -> None:
    family = tiny_family(tmp_path)
    with open_store(tmp_path) as store:
        vote_in_store(store, family, "lll")
        ask_again(store, {0: "left", 1: "right"})
        ask_again(store, {0: "right"})
        found = from_store(store, family.name)
        strict = from_store(store, family.name, rule=VoteRule(min_votes=2))
        agreed = from_store(store, family.name, rule=VoteRule(min_agreement=0.7))
    assert [(round(pair.agreement, 2), len(pair.votes)) for pair in found.pairs] == [(0.67, 3), (1.0, 1)]
    assert found.dropped == {"votes that balance out": 2}
    assert found.raters == 3
    assert [len(pair.votes) for pair in strict.pairs] == [3]
    assert strict.dropped == {"votes that balance out": 2, "on pairs with too few votes": 1}
    assert [len(pair.votes) for pair in agreed.pairs] == [1]
    assert len(sources_of(found.pairs)) == 4


def test_a_flagged_rater_says_nothing(tmp_path: Path) -> None:
    family = tiny_family(tmp_path)
    with open_store(tmp_path) as store:
        vote_in_store(store, family, "ll")
        person = next(iter(store.preference_pairs(family.name).pairs)).participant_id
        store.flag_participant(person, "careless")
        found = from_store(store, family.name)
    assert found.pairs == []
    assert found.dropped == {"flagged": 2}


def test_weights_average_one_and_follow_agreement_or_prompt() -> None:
    pairs = [
        replace(pair, prompt=prompt, agreement=share)
        for pair, prompt, share in zip(random_pairs(3), ("a", "a", "b"), (1.0, 0.75, 0.5), strict=True)
    ]
    assert [pair.weight for pair in weigh_pairs(pairs, "agreement")] == pytest.approx([2.0, 1.0, 0.0])
    assert [pair.weight for pair in weigh_pairs(pairs, "prompt")] == pytest.approx([0.75, 0.75, 1.5])
    assert {pair.weight for pair in weigh_pairs(pairs, "none")} == {1.0}
    with pytest.raises(InputError, match="choose from none, agreement, prompt"):
        weigh_pairs(pairs, "magic")


def test_held_out_prompts_are_never_trained_on_and_stay_held_out() -> None:
    pairs = [replace(pair, prompt=f"prompt {number // 2}") for number, pair in enumerate(random_pairs(200))]
    kept, held_out = split_by_prompt(pairs, 0.2)
    assert 10 <= len(held_out) / 2 <= 30
    assert not {pair.prompt for pair in kept} & {pair.prompt for pair in held_out}
    assert {pair.source for pair in split_by_prompt(pairs[:100], 0.2)[1]} <= {pair.source for pair in held_out}
    assert split_by_prompt(pairs, 0.0) == (pairs, [])
