"""Issuing a ballot and recording an answer inside somebody's transaction: the Store's methods are built from these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from collection import queries
from collection.checks import check_one_of, check_response_time
from collection.errors import InputError
from collection.models import BallotRow, GenerationRow, VoteRow, new_id, now, require_participant
from collection.records import BALLOT_KINDS, CHOICES, Choice, NewBallot, Reveal
from collection.tallies import counted


def new_ballot(session: Session, ballot: NewBallot) -> BallotRow:
    """The row for `ballot`; InputError for an unknown person, or two generations that cannot be compared."""
    check_one_of("ballot kind", ballot.kind, BALLOT_KINDS)
    require_participant(session, ballot.participant_id)
    left = session.get(GenerationRow, ballot.left_generation_id)
    right = session.get(GenerationRow, ballot.right_generation_id)
    if left is None or right is None:
        missing = ballot.left_generation_id if left is None else ballot.right_generation_id
        raise InputError(f"There is no generation {missing!r}; store both pictures before asking about them.")
    if left.id == right.id:
        raise InputError(f"The generation {left.id!r} stands on both sides; a ballot needs two different ones.")
    for trait in ("prompt", "family", "modality"):
        if getattr(left, trait) != getattr(right, trait):
            raise InputError(
                f"A ballot's two generations must share their {trait}, "
                f"but left has {getattr(left, trait)!r} and right {getattr(right, trait)!r}."
            )
    return BallotRow(**vars(ballot) | {"id": new_id(), "comparison_id": ballot.comparison_id or left.comparison_id})


def record_votes(
    session: Session,
    answers: Sequence[tuple[str, Choice]],
    participant_id: str,
    response_time_s: float | None,
    *,
    in_study: bool = False,
) -> list[Reveal]:
    """Inserts or changes this person's answers [(ballot_id, choice), ...]; returns the names in order.

    Raises InputError for an unknown ballot or choice, a ballot issued to someone else, or one of a study where none
    is expected (its names must not be told) and the other way round.
    """
    check_response_time(response_time_s)
    for ballot_id, choice in answers:
        if not isinstance(ballot_id, str):  # a web client may send anything
            raise InputError(f"The ballot id {ballot_id!r} is no text; send the one that was issued.")
        check_one_of("choice", choice, CHOICES)
    ballot_ids = {ballot_id for ballot_id, _ in answers}
    found = {row[0].id: row for row in session.execute(queries.ballots_to_answer(ballot_ids))}
    reveals = []
    with counted(session, participant_id, VoteRow.ballot_id.in_(ballot_ids)):
        for ballot_id, choice in answers:
            if ballot_id not in found or found[ballot_id][0].participant_id != participant_id:
                raise InputError(f"The ballot {ballot_id!r} was not issued to this participant; ask for a new ballot.")
            ballot, family, modality, left_variant, right_variant, flag, assigned = found[ballot_id]
            if assigned != in_study:
                raise InputError(f"The ballot {ballot_id!r} belongs to a study; answer it on the page of that study.")
            session.execute(
                _upsert(
                    session,
                    ballot_id=ballot.id,
                    participant_id=ballot.participant_id,
                    choice=choice,
                    response_time_s=response_time_s,
                    flag=flag,
                    family=family,
                    modality=modality,
                    left_variant=left_variant,
                    right_variant=right_variant,
                    blind=ballot.blind,
                    kind=ballot.kind,
                    study=ballot.study,
                )
            )
            reveals.append(Reveal(ballot_id, choice, left_variant, right_variant))
    return reveals


def _upsert(session: Session, **vote: Any) -> Executable:
    """Inserts a vote, or changes the choice of the one that this person gave on this ballot before."""
    moment = now()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    new = {"id": new_id(), "first_choice": vote["choice"], "withdrawn": False, "created_at": moment}
    return (
        insert(VoteRow)
        .values(**vote, **new, changed_at=moment)
        .on_conflict_do_update(
            index_elements=["ballot_id", "participant_id"],
            set_={"choice": vote["choice"], "withdrawn": False, "changed_at": moment},
        )
    )
