"""What a person in a study is asked next: design.py decides, this looks up what it needs and stores the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any, Final, cast

from sqlalchemy import Select, and_, bindparam, select
from sqlalchemy.orm import Session

from collection.database import sql
from collection.database.models import AssignmentRow, BallotRow, EnrolmentRow, StudyPairRow, VoteRow, now
from collection.studies.assignment import (
    TRAINING_BALLOTS,
    Asked,
    Candidate,
    choose_check,
    choose_pair,
    choose_repeat,
    first_stands_left,
    schedule,
    seeded,
)
from collection.studies.study_config import StudyPlan
from collection.types import AssignmentKind, BallotKind, NewBallot, StudyBallot
from collection.votes import issuable
from collection.votes.casting import BALLOT_LIFE, issue_ballots

STANDING: Final = and_(VoteRow.ballot_id == AssignmentRow.ballot_id, VoteRow.withdrawn.is_(False))
"""The vote on an assigned ballot that was not taken back."""
OPEN_FOR: Final = timedelta(minutes=15)  # how long an unanswered ballot keeps its pair from others


def everything_asked(session: Session, enrolment_id: str) -> list[Asked]:
    """Everything this person was given, in order."""
    rows = session.execute(_asked_of(), {"enrolment_id": enrolment_id}).all()
    repeated = {row.repeat_of for row in rows}
    return [
        Asked(
            row.ballot_id,
            row.pair_id,
            row.number,
            cast(AssignmentKind, row.kind),
            answered=row.choice is not None,
            skipped=row.choice == "skip",
            repeated=row.ballot_id in repeated,
            item_id=row.item_id,
        )
        for row in rows
    ]


@cache
def _asked_of() -> Select[str, str, int, str, str | None, str, str]:
    return (
        select(
            AssignmentRow.ballot_id,
            AssignmentRow.pair_id,
            AssignmentRow.number,
            AssignmentRow.kind,
            AssignmentRow.repeat_of,
            StudyPairRow.item_id,
            VoteRow.choice,
        )
        .join(StudyPairRow, StudyPairRow.id == AssignmentRow.pair_id)
        .outerjoin(VoteRow, STANDING)
        .where(AssignmentRow.enrolment_id == bindparam("enrolment_id"))
        .order_by(AssignmentRow.number)
    )


def give_out(session: Session, plan: StudyPlan, enrolled: EnrolmentRow, asked: Sequence[Asked]) -> Asked | None:
    """Decides on, and stores, the person's next ballot; None when there is none."""
    kinds = schedule(plan, seeded(plan.seed, "schedule", enrolled.number))
    number = len(asked) + 1
    if number > len(kinds):
        return None
    rng = seeded(plan.seed, "choice", enrolled.number, number)
    kind, pair_id, original = kinds[number - 1], None, None
    seen = {ballot.pair_id for ballot in asked}
    if kind == "repeat":
        original = choose_repeat(asked, rng)
        pair_id = original.pair_id if original else None
    elif kind != "normal":
        known = select(StudyPairRow.id).where(StudyPairRow.study == plan.name, StudyPairRow.kind == kind)
        pair_id = choose_check(session.scalars(known.order_by(StudyPairRow.number)).all(), seen, rng)
    if pair_id is None:
        kind = "normal"
        pair_id = _least_voted(session, plan, enrolled, asked, rng)
    if pair_id is None:
        return None
    pair = session.get_one(StudyPairRow, pair_id)
    first_left = first_stands_left(plan.seed, enrolled.number, pair.number)
    if original is not None:
        first_left = session.get_one(BallotRow, original.ballot_id).left_generation_id != pair.first_generation_id
    sides = (pair.first_generation_id, pair.second_generation_id)
    new = NewBallot(
        sides[0] if first_left else sides[1],
        sides[1] if first_left else sides[0],
        enrolled.participant_id,
        kind="check" if kind == "training" else kind,
        study=plan.name,
    )
    (ballot,) = issue_ballots(session, [new])
    session.add(
        AssignmentRow(
            ballot_id=ballot.id,
            study=plan.name,
            enrolment_id=enrolled.id,
            pair_id=pair_id,
            number=number,
            kind=kind,
            repeat_of=original.ballot_id if original else None,
        )
    )
    session.flush()
    return Asked(ballot.id, pair_id, number, kind, answered=False, item_id=pair.item_id)


def renewed(session: Session, waiting: Asked) -> Asked:
    """The same question on a fresh ballot, where the one that was given out has expired unanswered."""
    old = session.get_one(BallotRow, waiting.ballot_id)
    if now() - old.created_at <= BALLOT_LIFE:
        return waiting
    sides = (old.left_generation_id, old.right_generation_id)
    new = NewBallot(*sides, old.participant_id, kind=cast(BallotKind, old.kind), study=old.study)
    (fresh,) = issue_ballots(session, [new])
    place = session.get_one(AssignmentRow, old.id)
    place.ballot_id, place.created_at = fresh.id, now()
    session.flush()
    return replace(waiting, ballot_id=fresh.id)


def _least_voted(
    session: Session, plan: StudyPlan, enrolled: EnrolmentRow, asked: Sequence[Asked], rng: Any
) -> str | None:
    rows = session.execute(_unfinished_pairs(), {"study": plan.name, "votes_per_pair": plan.votes_per_pair}).all()
    waiting = Counter(session.scalars(_open_questions(), {"study": plan.name, "since": now() - OPEN_FOR}))
    theirs = {"study": plan.name, "participant_id": enrolled.participant_id}
    seen = {ballot.pair_id for ballot in asked} | set(session.scalars(issuable.revealed_pairs(), theirs))
    candidates = [
        Candidate(pair_id, item_id, votes, waiting[pair_id]) for pair_id, item_id, votes in rows if pair_id not in seen
    ]
    return choose_pair(candidates, {ballot.item_id for ballot in asked}, plan.votes_per_pair, plan.random_share, rng)


@cache
def _unfinished_pairs() -> Select[str, str, int]:
    return (
        select(StudyPairRow.id, StudyPairRow.item_id, StudyPairRow.votes)
        .where(
            StudyPairRow.study == bindparam("study"),
            StudyPairRow.kind == "normal",
            StudyPairRow.votes < bindparam("votes_per_pair"),
        )
        .order_by(StudyPairRow.number)
    )


@cache
def _open_questions() -> Select[str]:
    """The pairs of unanswered ballots, one row for each ballot."""
    return (
        select(AssignmentRow.pair_id)
        .outerjoin(VoteRow, STANDING)
        .where(
            AssignmentRow.study == bindparam("study"),
            AssignmentRow.kind == "normal",
            AssignmentRow.created_at > bindparam("since"),
            VoteRow.id.is_(None),
        )
    )


def view_of(session: Session, plan: StudyPlan, ballot: Asked) -> StudyBallot:
    """What may be shown of it."""
    shown = session.execute(sql.ballot_to_show(), {"ballot_id": ballot.ballot_id}).one()
    training = TRAINING_BALLOTS if plan.training else 0
    number = max(0, ballot.number - training)
    rest = plan.break_every > 0 and number > 1 and (number - 1) % plan.break_every == 0
    return StudyBallot(
        *shown,
        number=number,
        total=plan.ballots_per_participant,
        training=ballot.kind == "training",
        rest_first=rest,
    )


def right_side(session: Session, place: AssignmentRow) -> str | None:
    pair = session.get_one(StudyPairRow, place.pair_id)
    better = pair.first_generation_id if pair.right_answer == "first" else pair.second_generation_id
    return "left" if session.get_one(BallotRow, place.ballot_id).left_generation_id == better else "right"
