"""What a person in a study is asked next: design.py decides, this looks up what it needs and stores the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from collection import queries
from collection.casting import BALLOT_LIFE, issue_ballots
from collection.design import (
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
from collection.models import AssignmentRow, BallotRow, EnrolmentRow, StudyPairRow, VoteRow, now
from collection.plan import StudyPlan
from collection.records import AssignmentKind, BallotKind, NewBallot, StudyBallot

OPEN_FOR: Final = timedelta(minutes=15)  # how long an unanswered ballot keeps its pair from others


def everything_asked(session: Session, enrolment_id: str) -> list[Asked]:
    """Everything this person was given, in order."""
    rows = session.execute(
        select(AssignmentRow, VoteRow.choice)
        .outerjoin(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
        .where(AssignmentRow.enrolment_id == enrolment_id)
        .order_by(AssignmentRow.number)
    ).all()
    repeated = {row.repeat_of for row, _ in rows}
    return [
        Asked(
            row.ballot_id,
            row.pair_id,
            row.number,
            cast(AssignmentKind, row.kind),
            answered=choice is not None,
            skipped=choice == "skip",
            repeated=row.ballot_id in repeated,
        )
        for row, choice in rows
    ]


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
        pair_id = _least_voted(session, plan, seen, rng)
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
    return Asked(ballot.id, pair_id, number, kind, answered=False)


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


def _least_voted(session: Session, plan: StudyPlan, seen: set[str], rng: Any) -> str | None:
    rows = session.execute(
        select(StudyPairRow.id, StudyPairRow.item_id, StudyPairRow.votes)
        .where(
            StudyPairRow.study == plan.name,
            StudyPairRow.kind == "normal",
            StudyPairRow.votes < plan.votes_per_pair,
        )
        .order_by(StudyPairRow.number)
    ).all()
    waiting: Counter[str] = Counter(
        session.scalars(
            select(AssignmentRow.pair_id)
            .outerjoin(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
            .where(
                AssignmentRow.study == plan.name,
                AssignmentRow.kind == "normal",
                AssignmentRow.created_at > now() - OPEN_FOR,
                VoteRow.id.is_(None),
            )
        )
    )
    seen_items = set(session.scalars(select(StudyPairRow.item_id).where(StudyPairRow.id.in_(seen))))
    candidates = [Candidate(row.id, row.item_id, row.votes, waiting[row.id]) for row in rows if row.id not in seen]
    return choose_pair(candidates, seen_items, plan.votes_per_pair, plan.random_share, rng)


def view_of(session: Session, plan: StudyPlan, ballot: Asked) -> StudyBallot:
    shown = session.execute(queries.ballot_views().where(BallotRow.id == ballot.ballot_id)).one()
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
