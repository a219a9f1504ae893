"""What somebody is told about their own votes."""

from __future__ import annotations

from pathlib import Path

import pytest

from collection.types import Choice
from collection.votes.own_votes import OwnPicks
from tests.collection.helpers import add_comparison, cast, open_store


@pytest.mark.parametrize(
    ("others", "shared", "agreeing"),
    [
        ([], 0, 0),
        (["left"], 1, 1),
        (["right"], 1, 0),
        (["left", "right"], 0, 0),  # no majority
        (["left", "left", "right", "tie"], 1, 1),
        (["tie", "tie", "left"], 1, 0),
        (["skip"], 0, 0),
    ],
)
def test_agreement_is_with_what_most_others_say_about_the_same_two(
    tmp_path: Path, others: list[Choice], shared: int, agreeing: int
) -> None:
    with open_store(tmp_path) as store:
        made = add_comparison(store)
        me, *strangers = [store.create_participant() for _ in range(len(others) + 2)]
        cast(store, me, made["base"], made["aligned"], "left")
        for who, choice in zip(strangers, others, strict=False):
            cast(store, who, made["base"], made["aligned"], choice)
        cast(store, strangers[-1], made["base"], made["aligned_npo"], "right")  # of another pair
        assert store.own_picks(me) == OwnPicks(1, shared, agreeing)


def test_sides_do_not_matter_and_what_does_not_count_is_left_out(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        made = add_comparison(store)
        me, other, flagged = (store.create_participant() for _ in range(3))
        ballot = cast(store, me, made["base"], made["aligned"], "left")
        cast(store, other, made["aligned"], made["base"], "right")
        store.flag_participant(flagged, "a script")
        cast(store, flagged, made["base"], made["aligned"], "right")
        assert store.own_picks(me) == OwnPicks(1, 1, 1)
        cast(store, me, made["base"], made["aligned_npo"], "skip")
        cast(store, me, made["base"], made["aligned_npo"], "left", blind=False)
        assert store.own_picks(me) == OwnPicks(1, 1, 1)
        store.unvote([ballot], me)
        assert store.own_picks(me) == OwnPicks(0, 0, 0)
        assert store.own_picks("nobody") == OwnPicks(0, 0, 0)
