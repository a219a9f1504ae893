from __future__ import annotations

import pytest

from collection.types import BallotView
from service.arena.picks import Pick, ballots_in_order, pairwise_choices, panel_order, panel_pairs
from service.errors import InputError


def test_three_panels_make_three_ballots() -> None:
    assert panel_pairs(3) == [(0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize(
    ("pick", "choices"),
    [
        (Pick("A"), ["left", "left", "skip"]),
        (Pick("B"), ["right", "skip", "left"]),
        (Pick("C"), ["skip", "right", "right"]),
        (Pick("A", "C"), ["left", "left", "left"]),
        (Pick("A", "B"), ["left", "left", "right"]),
        (Pick("C", "A"), ["right", "right", "right"]),
        (Pick(no_difference=True), ["tie", "tie", "tie"]),
    ],
)
def test_best_wins_its_pairs_worst_loses_its_pairs_and_the_rest_is_skipped(pick: Pick, choices: list[str]) -> None:
    assert pairwise_choices(pick, 3) == choices


@pytest.mark.parametrize(
    ("pick", "sentence"),
    [
        (Pick(), "No best panel was chosen; choose from A, B, C, or say 'no difference'."),
        (Pick("D"), "The best panel is 'D'; choose from A, B, C."),
        (Pick("AB"), "The best panel is 'AB'; choose from A, B, C."),
        (Pick("A", "x"), "The worst panel is 'x'; choose from A, B, C."),
        (Pick("A", "A"), "Panel A was chosen as best and as worst; choose another worst, or none."),
        (Pick("A", no_difference=True), "Both a panel and 'no difference' were chosen; choose one of the two."),
    ],
)
def test_a_pick_that_makes_no_sense_is_answered_with_one_sentence(pick: Pick, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        pairwise_choices(pick, 3)
    assert str(raised.value) == sentence


def test_the_panel_order_is_read_back_from_ballots_in_any_order() -> None:
    ballots = [
        BallotView("3", "p", "image", "x", "y"),
        BallotView("1", "p", "image", "z", "x"),
        BallotView("2", "p", "image", "z", "y"),
    ]
    assert panel_order(ballots) == ["z", "x", "y"]
    assert [ballot.ballot_id for ballot in ballots_in_order(ballots, ["z", "x", "y"])] == ["1", "2", "3"]
