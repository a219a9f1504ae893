"""Issuing a ballot and recording an answer inside somebody's transaction: the Store's methods are built from these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import Executable
from sqlalchemy.orm import Session

from collection import queries
from collection.checks import check_one_of, check_response_time
from collection.dialects import insert_or_change
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
    reveals, moment = [], now()
    with counted(session, [participant_id], ballot_ids=ballot_ids):
        rows = session.execute(queries.ballots_to_answer(), {"ballot_ids": list(ballot_ids)})
        found = {row[0].id: row for row in rows}
        for ballot_id, choice in answers:
            if ballot_id not in found or found[ballot_id][0].participant_id != participant_id:
                raise InputError(f"The ballot {ballot_id!r} was not issued to this participant; ask for a new ballot.")
            ballot, family, modality, left_variant, right_variant, flag, assigned = found[ballot_id]
            if assigned != in_study:
                raise InputError(f"The ballot {ballot_id!r} belongs to a study; answer it on the page of that study.")
            vote = {
                "id": new_id(),
                "ballot_id": ballot.id,
                "participant_id": ballot.participant_id,
                "choice": choice,
                "first_choice": choice,
                "response_time_s": response_time_s,
                "withdrawn": False,
                "flag": flag,
                "family": family,
                "modality": modality,
                "left_variant": left_variant,
                "right_variant": right_variant,
                "blind": ballot.blind,
                "kind": ballot.kind,
                "study": ballot.study,
                "created_at": moment,
                "changed_at": moment,
            }
            session.connection().execute(_keep_vote(session.get_bind().dialect.name), vote)
            reveals.append(Reveal(ballot_id, choice, left_variant, right_variant))
    return reveals


@cache
def _keep_vote(dialect: str) -> Executable:
    """Inserts a vote, or changes the choice of the one that this person gave on this ballot before."""
    new = insert_or_change(dialect, VoteRow)
    changed = {name: getattr(new.excluded, name) for name in ("choice", "withdrawn", "changed_at")}
    return new.on_conflict_do_update(index_elements=["ballot_id", "participant_id"], set_=changed)
