"""Count tables: every vote that counts is counted when it is given, so that results never read the votes themselves.

A vote counts when it answers a normal ballot on two different variants, chose something, was not taken back and is not
flagged. `counted` is the only place where counts change; whoever changes a person's votes does it inside:

    with counted(session, participant_id, VoteRow.study == study):
        ...  # insert, update or delete exactly such votes of this person
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Executable, Row, Select, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from collection.models import AssignmentRow, BallotRow, ParticipantRow, StudyPairRow, TallyRow, VoteRow
from collection.records import TALLY_DIMENSIONS

COUNTS: Final[tuple[ColumnElement[bool], ...]] = (
    VoteRow.kind == "normal",
    VoteRow.withdrawn.is_(False),
    VoteRow.flag.is_(None),
    VoteRow.choice != "skip",
    VoteRow.left_variant != VoteRow.right_variant,
)
KEYS: Final = ("dimension", "key", "study", "family", "modality", "blind", "variant_a", "variant_b")
OUTCOMES: Final = ("wins_a", "wins_b", "ties", "both_bad", "left_wins")

Key = tuple[Any, ...]  # values of KEYS
Tallies = dict[Key, np.ndarray]  # -> how many of each of OUTCOMES


@contextmanager
def counted(session: Session, participant_id: str, *which: ColumnElement[bool]) -> Iterator[None]:
    """Keeps the counts right while this person's votes `which` change; name them by what does not change."""
    session.get(ParticipantRow, participant_id, with_for_update=True)  # two answers at once are counted in turn
    own = (VoteRow.participant_id == participant_id, *which)
    before, pairs = tally_votes(session, *own), _pairs_of(session, own)
    yield
    session.flush()
    after = tally_votes(session, *own)
    nothing = np.zeros(len(OUTCOMES), int)
    changes = {key: after.get(key, nothing) - before.get(key, nothing) for key in before.keys() | after.keys()}
    _add(session, changes)
    recount_pairs(session, pairs | _pairs_of(session, own))


def tally_votes(session: Session, *which: ColumnElement[bool]) -> Tallies:
    """What the votes `which` make in the count table."""
    tallies: Tallies = {}
    for row in session.execute(_votes_that_count().where(*which)):
        outcome = _outcome(row)
        for key in _keys(row):
            tallies[key] = tallies.get(key, 0) + outcome
    return tallies


def wrong_tallies(session: Session) -> list[str]:
    """Where the count table says something else than the votes, a sentence each; reads every vote."""
    columns = [getattr(TallyRow, name) for name in (*KEYS, *OUTCOMES)]
    some = or_(*(getattr(TallyRow, name) != 0 for name in OUTCOMES))
    kept = {tuple(row[: len(KEYS)]): list(row[len(KEYS) :]) for row in session.execute(select(*columns).where(some))}
    real = {key: outcome.tolist() for key, outcome in tally_votes(session).items()}
    return [
        f"The count table has {kept.get(key)} for {key}, the votes make {real.get(key)}."
        for key in sorted(kept.keys() | real.keys(), key=str)
        if kept.get(key) != real.get(key)
    ]


def count_everything(session: Session) -> None:
    """Makes the count table anew from the votes: for votes that came from elsewhere than the Store's methods."""
    session.execute(delete(TallyRow))
    _add(session, tally_votes(session))


def recount_pairs(session: Session, pair_ids: Collection[str]) -> None:
    """Writes to each of these study pairs how many of its votes count."""
    if not pair_ids:
        return
    votes = (
        select(func.count())
        .select_from(AssignmentRow)
        .join(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
        .where(AssignmentRow.pair_id == StudyPairRow.id, AssignmentRow.kind == "normal", *COUNTS)
        .correlate(StudyPairRow)
        .scalar_subquery()
    )
    session.execute(
        update(StudyPairRow)
        .where(StudyPairRow.id.in_(pair_ids))
        .values(votes=votes)
        .execution_options(synchronize_session=False)
    )


@cache
def _votes_that_count() -> Select[Any]:
    columns: tuple[Any, ...] = (
        VoteRow.participant_id,
        BallotRow.comparison_id,
        VoteRow.created_at,
        VoteRow.study,
        VoteRow.family,
    )
    sides: tuple[Any, ...] = (
        VoteRow.modality,
        VoteRow.blind,
        VoteRow.left_variant,
        VoteRow.right_variant,
        VoteRow.choice,
    )
    return select(*columns, *sides).join(BallotRow, VoteRow.ballot_id == BallotRow.id).where(*COUNTS)


def _keys(vote: Row[Any]) -> list[Key]:
    """The row of the count table that a vote belongs to, in each dimension."""
    keys = {
        "participant": vote.participant_id,
        "comparison": vote.comparison_id,
        "hour": f"{vote.created_at:%Y-%m-%d %H}",
    }
    shared = (vote.study or "", vote.family, vote.modality, vote.blind)
    variants = sorted((vote.left_variant, vote.right_variant))
    return [(dimension, keys[dimension], *shared, *variants) for dimension in TALLY_DIMENSIONS]


def _outcome(vote: Row[Any]) -> np.ndarray:
    """A vote as OUTCOMES."""
    choice = vote.choice
    if choice in ("left", "right"):
        a_won = (choice == "left") == (vote.left_variant < vote.right_variant)
        return np.array([a_won, not a_won, 0, 0, choice == "left"], int)
    return np.array([0, 0, choice == "tie", choice == "both_bad", 0], int)


def _add(session: Session, changes: Tallies) -> None:
    rows = [
        dict(zip((*KEYS, *OUTCOMES), (*key, *change.tolist()), strict=True))
        for key, change in sorted(changes.items())  # in one order everywhere: no two transactions wait for each other
        if change.any()
    ]
    if rows:
        session.connection().execute(_upsert(session.get_bind().dialect.name), rows)


@cache
def _upsert(dialect: str) -> Executable:
    new = (postgresql if dialect == "postgresql" else sqlite).insert(TallyRow)
    sums = {name: getattr(TallyRow, name) + getattr(new.excluded, name) for name in OUTCOMES}
    return new.on_conflict_do_update(index_elements=list(KEYS), set_=sums)


def _pairs_of(session: Session, which: Sequence[ColumnElement[bool]]) -> set[str]:
    of_votes = select(AssignmentRow.pair_id).join(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
    return set(session.scalars(of_votes.where(*which).distinct()))
