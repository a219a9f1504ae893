"""Issuing a ballot and recording an answer inside somebody's transaction: the Store's methods are built from these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import Executable, Select, bindparam, select
from sqlalchemy.orm import Session

from collection.database import sql
from collection.database.dialects import insert_or_change
from collection.database.models import BallotRow, GenerationRow, VoteRow, new_id, now, require_participant
from collection.errors import InputError, RefusedError
from collection.types import BALLOT_KINDS, CHOICES, Choice, NewBallot, Reveal
from collection.validate import check_one_of, check_response_time
from collection.votes.comparisons import count_ballots
from collection.votes.vote_counts import counted, is_locked

BALLOT_LIFE: Final = timedelta(days=7)
"""How long a ballot can be answered, counted from the moment when it was issued."""


def issue_ballots(session: Session, ballots: Sequence[NewBallot]) -> list[BallotRow]:
    """Stores the ballots and counts them on their comparisons; InputError as `_new_ballot`."""
    for participant_id in {ballot.participant_id for ballot in ballots}:
        if not is_locked(session, participant_id):
            require_participant(session, participant_id)
    ids = {side for ballot in ballots for side in (ballot.left_generation_id, ballot.right_generation_id)}
    traits = {row.id: row for row in session.execute(_traits_of(), {"ids": list(ids)})}
    rows = [_new_ballot(ballot, traits) for ballot in ballots]
    session.add_all(rows)
    session.flush()
    count_ballots(session, Counter(row.comparison_id for row in rows))
    return rows


@cache
def _traits_of() -> Select[str, str, str, str, str]:
    """What decides whether generations can be compared."""
    made = GenerationRow
    columns = (made.id, made.comparison_id, made.prompt, made.family, made.modality)
    return select(*columns).where(made.id.in_(bindparam("ids", expanding=True)))


def _new_ballot(ballot: NewBallot, traits: Mapping[str, Any]) -> BallotRow:
    """The row for `ballot`; InputError for two generations that are not in `traits` or cannot be compared."""
    check_one_of("ballot kind", ballot.kind, BALLOT_KINDS)
    left, right = traits.get(ballot.left_generation_id), traits.get(ballot.right_generation_id)
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
    made = {"id": new_id(), "comparison_id": left.comparison_id, "created_at": now()}
    return BallotRow(**made | {name: value for name, value in vars(ballot).items() if value is not None})


def record_votes(
    session: Session,
    answers: Sequence[tuple[str, Choice]],
    participant_id: str,
    response_time_s: float | None,
    *,
    in_study: bool = False,
) -> list[Reveal]:
    """Inserts this person's answers [(ballot_id, choice), ...]; returns the names in order.

    A study tells no names, so there an answer may be changed (the first stays known); elsewhere the same may be said
    again and nothing else. Raises InputError for an unknown choice and RefusedError for a ballot that was never issued,
    not to this person, too long ago, answered already, or of a study where none is expected and the other way round.
    """
    check_response_time(response_time_s)
    for ballot_id, choice in answers:
        if not isinstance(ballot_id, str):  # a web client may send anything
            raise InputError(f"The ballot id {ballot_id!r} is no text; send the one that was issued.")
        check_one_of("choice", choice, CHOICES)
    ballot_ids = {ballot_id for ballot_id, _ in answers}
    keep = _keep_vote(session.get_bind().dialect.name, may_change=in_study)
    reveals = []
    with counted(session, [participant_id], ballot_ids=ballot_ids):
        rows = session.execute(sql.ballots_to_answer(), {"ballot_ids": list(ballot_ids)})
        found = {row[0].id: row for row in rows}
        for ballot_id, choice in answers:
            row = found.get(ballot_id)
            _check_answerable(ballot_id, row, participant_id, in_study)
            vote = _vote(row, choice, response_time_s)
            if session.connection().execute(keep, vote).first() is None:
                raise RefusedError(
                    f"The ballot {ballot_id!r} was answered already, and its names were told; ask for a new ballot.",
                    "answered",
                )
            reveals.append(Reveal(ballot_id, choice, vote["left_variant"], vote["right_variant"]))
    return reveals


def _check_answerable(ballot_id: str, row: Any, participant_id: str, in_study: bool) -> None:
    """RefusedError unless this person may answer the ballot now; `row` is that of sql.ballots_to_answer, if any."""
    if row is None or row[0].participant_id != participant_id:
        raise RefusedError(  # in the same words: nobody finds out which ids exist
            f"The ballot {ballot_id!r} was not issued to this participant; ask for a new ballot.",
            "unknown_ballot" if row is None else "not_yours",
        )
    if row[-1] != in_study:
        raise RefusedError(
            f"The ballot {ballot_id!r} belongs to a study; answer it on the page of that study.", "wrong_door"
        )
    if now() - row[0].created_at > BALLOT_LIFE:
        raise RefusedError(
            f"The ballot {ballot_id!r} was open for more than {BALLOT_LIFE.days} days; ask for a new ballot.", "expired"
        )


def _vote(row: Any, choice: Choice, response_time_s: float | None) -> dict[str, Any]:
    """The values of a VoteRow that answers the ballot of a row of sql.ballots_to_answer."""
    ballot, family, modality, left_variant, right_variant, flag, _ = row
    moment = now()
    return {
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


@cache
def _keep_vote(dialect: str, *, may_change: bool) -> Executable:
    """Inserts a vote, or changes the one that this person gave on this ballot before; no row where that may not be.

    Decided inside the statement: of two answers that arrive at once the second finds the first.
    """
    new = insert_or_change(dialect, VoteRow)
    changed = {name: getattr(new.excluded, name) for name in ("choice", "withdrawn", "changed_at")}
    same = (VoteRow.choice == new.excluded.choice) & VoteRow.withdrawn.is_(False)
    return new.on_conflict_do_update(
        index_elements=["ballot_id", "participant_id"], set_=changed, where=None if may_change else same
    ).returning(VoteRow.id)
