"""Reversal, the tie policy, and which pairs fit in one batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npo_core.errors import InputError
from tests.collection.helpers import open_store
from tests.tiny import tiny_family
from tests.train.helpers import random_pairs, vote_in_store
from train.data import PairSet, from_store, hash_pairs, reverse_pairs, usable


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
