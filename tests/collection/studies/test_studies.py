"""A study from its first ballot to its last: nobody is asked twice, every pair gets its votes, care is judged."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from collection.database.models import AssignmentRow, BallotRow, StudyPairRow, now
from collection.errors import InputError, RefusedError
from collection.store import Store
from collection.types import StudyBallot
from collection.votes.casting import BALLOT_LIFE
from tests.collection.helpers import add_comparison, cast, generation
from tests.collection.study_helpers import enrol, make_plan, make_study, take_part, variants_of


def by_size(store: Store) -> Any:
    """Prefers the picture whose variant comes last in the alphabet; never a degraded one."""

    def answer(ballot: StudyBallot) -> Any:
        left, right = variants_of(store, ballot)
        if "degraded" in (left, right):
            return "left" if right == "degraded" else "right"
        return "left" if left > right else "right"

    return answer


def assignments(store: Store) -> list[Any]:
    with store.reading() as session:
        rows = session.execute(
            select(AssignmentRow, BallotRow).join(BallotRow, BallotRow.id == AssignmentRow.ballot_id)
        ).all()
        session.expunge_all()
    return [tuple(row) for row in rows]


def pair_votes(store: Store) -> list[int]:
    with store.reading() as session:
        return list(session.scalars(select(StudyPairRow.votes).where(StudyPairRow.kind == "normal")))


def test_every_pair_gets_its_votes_and_the_counts_are_those_of_the_votes(store: Store) -> None:
    make_study(store, prompts=4, votes_per_pair=3)
    while any(votes < 3 for votes in pair_votes(store)):
        take_part(store, by_size(store))
    assert set(pair_votes(store)) == {3}
    _person, shown = take_part(store, by_size(store))
    assert all(ballot.training for ballot in shown)  # nothing is left to ask
    assert sum(count.total for count in store.vote_counts(study="pilot")) == 4 * 3 * 3
    assert store.verify() == []
    (progress,) = store.study_progress()
    assert (progress.pairs, progress.pairs_done, progress.votes) == (12, 12, 36)


def test_nobody_sees_a_pair_twice_except_a_planned_repeat_with_the_sides_swapped(store: Store) -> None:
    make_study(store, prompts=8, ballots_per_participant=20, repeat_share=0.2, check_share=0.2)
    for _ in range(3):
        take_part(store, by_size(store))
    everything = assignments(store)
    ballots = {row.ballot_id: ballot for row, ballot in everything}
    seen: Counter[tuple[str, str]] = Counter()
    repeats = 0
    for row, ballot in everything:
        if row.kind == "repeat":
            repeats += 1
            original = ballots[row.repeat_of]
            assert original.left_generation_id == ballot.right_generation_id
            assert original.right_generation_id == ballot.left_generation_id
        else:
            seen[row.enrolment_id, row.pair_id] += 1
    assert repeats == 3 * 4
    assert set(seen.values()) == {1}


def test_the_next_ballot_is_fetched_ahead_and_an_unanswered_one_comes_again(store: Store) -> None:
    make_study(store)
    person = enrol(store).participant_id
    first = store.next_study_ballot("pilot", person)
    assert first is not None
    assert store.next_study_ballot("pilot", person) == first
    ahead = store.next_study_ballot("pilot", person, held=first.ballot_id)
    assert ahead is not None
    assert ahead.ballot_id != first.ballot_id
    assert store.next_study_ballot("pilot", person, held=first.ballot_id) == ahead
    store.answer(first.ballot_id, person, "left")
    assert store.next_study_ballot("pilot", person) == ahead


def test_progress_rests_and_the_end_are_told(store: Store) -> None:
    make_study(store, ballots_per_participant=7, break_every=3)
    person, shown = take_part(store, by_size(store))
    assert [ballot.number for ballot in shown] == [0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert [ballot.training for ballot in shown] == [True, True, *[False] * 7]
    assert [ballot.number for ballot in shown if ballot.rest_first] == [4, 7]
    enrolled = store.enrolment("pilot", person)
    assert enrolled is not None
    assert (enrolled.answered, enrolled.total) == (7, 7)
    assert enrolled.finished_at is not None


def test_a_ballot_of_a_study_tells_no_names_neither_before_nor_in_the_answer(store: Store) -> None:
    plan = make_study(store)
    person = enrol(store).participant_id
    ballot = store.next_study_ballot("pilot", person)
    assert ballot is not None
    answer = store.answer(ballot.ballot_id, person, "left", 1.0)
    told = f"{ballot} {answer}"
    assert not any(variant in told for variant in (*plan.variants, "degraded", "check", "repeat"))
    with pytest.raises(InputError, match="belongs to a study"):
        store.vote(ballot.ballot_id, person, "left")


def test_training_says_whether_the_answer_was_right_and_counts_nowhere(store: Store) -> None:
    make_study(store, ballots_per_participant=1)
    person = enrol(store).participant_id
    for wrong in (False, True):
        ballot = store.next_study_ballot("pilot", person)
        assert ballot is not None
        assert ballot.training
        better = "left" if variants_of(store, ballot)[0] != "degraded" else "right"
        choice: Any = {"left": "right", "right": "left"}[better] if wrong else better
        assert store.answer(ballot.ballot_id, person, choice).right is not wrong
    assert store.totals().votes == 0
    assert store.study_quality("pilot") == {}


def test_a_study_offers_only_its_own_choices(store: Store) -> None:
    make_study(store, tie=False, both_bad=False)
    person = enrol(store).participant_id
    ballot = store.next_study_ballot("pilot", person)
    assert ballot is not None
    with pytest.raises(InputError, match="choose from left, right, skip"):
        store.answer(ballot.ballot_id, person, "tie")
    with pytest.raises(InputError, match="does not take part"):
        store.answer(ballot.ballot_id, store.create_participant(), "left")
    with pytest.raises(InputError, match="belongs to no study"):
        store.answer("made up", person, "left")


def test_pictures_of_a_study_are_never_shown_where_names_are_told(store: Store) -> None:
    import random

    make_study(store)
    add_comparison(store, "elsewhere")
    ballot = store.next_ballot(store.create_participant(), random.Random(0))
    assert ballot is not None
    assert store.get_generation(ballot.left_generation_id).comparison_id == "elsewhere"


def test_an_item_is_filled_once_and_equal_pictures_make_no_pair(store: Store) -> None:
    from collection.studies.assignment import plan_items
    from collection.studies.prompts import Prompt

    plan = make_plan(training=False, check_share=0.0)
    store.create_study(plan, plan_items(plan, [Prompt("a cat")]))
    (item,) = store.items_to_fill("pilot")
    one = generation("base", "c", prompt="a cat")
    same = generation("aligned", "c", prompt="a cat", media=one.media, media_sha256=one.media_sha256)
    other = generation("aligned_npo", "c", prompt="a cat")
    assert store.fill_item(item.id, [one, same, other])
    assert not store.fill_item(item.id, [one, same, other])
    assert store.items_to_fill("pilot") == []
    assert len(pair_votes(store)) == 2
    assert len(store.comparison("c")) == 3


def test_who_is_asked_must_agree_and_the_study_must_be_open(store: Store) -> None:
    make_study(store, max_participants=1)
    with pytest.raises(InputError, match="read it and agree again"):
        store.enrol("pilot", None, "0")
    with pytest.raises(InputError, match="does not take part"):
        store.next_study_ballot("pilot", store.create_participant())
    first = enrol(store)
    with pytest.raises(InputError, match="has all its 1 participants"):
        enrol(store)
    assert store.enrol("pilot", first.participant_id, "1") == first  # somebody known comes back
    store.close_study("pilot")
    assert store.next_study_ballot("pilot", first.participant_id) is None
    assert store.open_study() is None
    store.close_study("pilot", closed=False)
    assert store.open_study() == "pilot"
    with pytest.raises(InputError, match="There is no study 'other'"):
        store.enrol("other", None, "1")
    with pytest.raises(InputError, match="choose another name"):
        store.create_study(make_plan(), [])


def test_after_the_deadline_nothing_is_given_out_but_answers_still_count(store: Store) -> None:
    make_study(store, deadline=datetime.now(UTC) + timedelta(seconds=1.5), training=False)
    person = enrol(store).participant_id
    ballot = store.next_study_ballot("pilot", person)
    assert ballot is not None
    import time

    time.sleep(1.6)
    with pytest.raises(InputError, match="ended on"):
        enrol(store)
    store.answer(ballot.ballot_id, person, "left")
    assert store.next_study_ballot("pilot", person) is None
    assert store.totals(study="pilot").votes == 1


def test_withdrawing_takes_every_answer_back_and_frees_the_pairs(store: Store) -> None:
    make_study(store, training=False)
    person, _ = take_part(store, by_size(store))
    assert store.totals().votes > 0
    assert store.withdraw("pilot", person) == 10
    assert store.totals().votes == 0
    assert set(pair_votes(store)) == {0}
    with pytest.raises(InputError, match="have withdrawn"):
        store.next_study_ballot("pilot", person)
    assert store.verify() == []


def test_erasing_by_code_leaves_nothing_of_a_person(store: Store) -> None:
    make_study(store)
    person, _ = take_part(store, by_size(store))
    take_part(store, by_size(store))
    store.report_fault("pilot", person, "a picture did not load")
    enrolled = store.enrolment("pilot", person)
    assert enrolled is not None
    assert store.participant_of_code(enrolled.code.lower()) == person
    assert store.erase_participant(person).votes == 12
    assert store.enrolment("pilot", person) is None
    assert not store.has_participant(person)
    assert store.verify() == []
    assert store.totals().participants == 1
    with store.reading() as session:
        assert person not in str(session.connection().exec_driver_sql("SELECT * FROM tallies").all())
    with pytest.raises(InputError, match="There is no participant"):
        store.participant_of_code(enrolled.code)


def test_the_careless_are_flagged_at_the_end_and_the_rule_can_be_undone(store: Store) -> None:
    make_study(store, ballots_per_participant=15, check_share=0.2)
    careful, _ = take_part(store, by_size(store))
    careless, _ = take_part(store, lambda _: "left", seconds=0.2)
    quality = store.study_quality("pilot")
    assert quality[careful][1] is None
    assert quality[careful][0].check_pass == 1.0
    assert quality[careful][0].consistency == 1.0
    assert quality[careless][1] is not None
    assert store.totals().participants == 1  # flagged as soon as they were through
    assert store.verify() == []
    assert store.apply_quality("pilot", enforce=False) == {}
    assert store.totals().participants == 2
    assert list(store.apply_quality("pilot")) == [careless]
    assert store.totals().participants == 1
    store.flag_participant(careful, "is the author")
    store.apply_quality("pilot", enforce=False)
    assert store.totals().participants == 1  # what was flagged by hand stays flagged
    store.flag_participant(careful, None)
    assert store.totals().participants == 2
    assert store.verify() == []


def test_a_skipped_pair_is_asked_again_of_others(store: Store) -> None:
    make_study(store, prompts=1, training=False, check_share=0.0, votes_per_pair=1, repeat_share=0.0)
    take_part(store, lambda _: "skip")
    assert set(pair_votes(store)) == {0}
    take_part(store, by_size(store))
    assert set(pair_votes(store)) == {1}


def test_a_changed_answer_moves_its_count(store: Store) -> None:
    make_study(store, training=False, check_share=0.0)
    person = enrol(store).participant_id
    ballot = store.next_study_ballot("pilot", person)
    assert ballot is not None
    for choice in ("left", "left", "skip", "tie"):
        store.answer(ballot.ballot_id, person, choice)  # type: ignore[arg-type]
        assert store.verify() == []
    (count,) = store.vote_counts(study="pilot")
    assert (count.ties, count.total) == (1, 1)


def test_votes_outside_studies_and_inside_are_told_apart(store: Store) -> None:
    make_study(store, training=False, ballots_per_participant=3, check_share=0.0, repeat_share=0.0)
    take_part(store, by_size(store))
    ids, person = add_comparison(store, "elsewhere"), store.create_participant()
    cast(store, person, ids["base"], ids["aligned"], "left")
    assert (store.totals().votes, store.totals(study="pilot").votes) == (4, 3)
    assert set(store.votes_for_statistics()[1]) <= {"", "kind 0", "kind 1"}
    assert set(store.votes_for_statistics(study="pilot")[1]) <= {"kind 0", "kind 1"}


def test_an_answer_before_the_shortest_look_is_refused(store: Store) -> None:
    make_study(store, min_view_s=0.3)
    person = enrol(store).participant_id
    ballot = store.next_study_ballot("pilot", person)
    assert ballot is not None
    with pytest.raises(RefusedError, match="before the pair could be seen") as refused:
        store.answer(ballot.ballot_id, person, "left")
    assert refused.value.reason == "too_early"
    time.sleep(0.3)
    store.answer(ballot.ballot_id, person, "left")


def test_a_pair_left_open_for_too_long_is_asked_again_on_a_fresh_ballot(store: Store) -> None:
    make_study(store)
    person = enrol(store).participant_id
    old = store.next_study_ballot("pilot", person)
    assert old is not None
    with store.writing() as session:
        session.execute(update(BallotRow).values(created_at=now() - BALLOT_LIFE - timedelta(seconds=1)))
    with pytest.raises(RefusedError, match="was open for more than 7 days"):
        store.answer(old.ballot_id, person, "left")
    fresh = store.next_study_ballot("pilot", person)
    assert fresh is not None
    assert replace(fresh, ballot_id=old.ballot_id) == old
    store.answer(fresh.ballot_id, person, "left")
    with pytest.raises(RefusedError, match="belongs to no study"):
        store.answer(old.ballot_id, person, "left")
