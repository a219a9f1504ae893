"""Count tables: every vote that counts is counted when it is given, so that results never read the votes themselves.

Which votes count: see which_count.py; what they are about: contenders.py. `counted` is the only place where counts
change; whoever changes people's votes does it inside:

    with counted(session, [participant_id], study=study):
        ...  # insert, update or delete votes of these people in this study, and no others

PostgreSQL locks rows one by one, so that two transactions may wait for each other. To keep them from it all take their
locks in one order: participants, enrolments, votes, count table, study pairs, comparisons; of each kind by their keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import add, sub
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Executable,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.orm import Session, aliased

from collection.database.dialects import HourOf, InCodePoints, insert_or_change
from collection.database.models import (
    AssignmentRow,
    BallotRow,
    GenerationRow,
    ParticipantRow,
    StudyItemRow,
    StudyPairRow,
    TallyRow,
    VoteRow,
)
from collection.types import TALLY_DIMENSIONS, TallyDimension
from collection.votes.which_count import COUNTS

LeftRow = aliased(GenerationRow, name="left_generation")
RightRow = aliased(GenerationRow, name="right_generation")

KEYS: Final = (
    *("dimension", "key", "study", "family", "modality", "blind", "category"),
    *("variant_a", "variant_b", "contender_a", "contender_b"),
)
OUTCOMES: Final = ("wins_a", "wins_b", "ties", "both_bad", "left_wins")
DIMENSION_KEYS: Final[dict[TallyDimension, Any]] = {
    "participant": VoteRow.participant_id,
    "comparison": BallotRow.comparison_id,
    "hour": HourOf(VoteRow.created_at),
}
# What `counted` can be narrowed to. Statements are made once for each, since making one takes longer than running it.
SCOPES: Final[dict[str, tuple[ColumnElement[bool], ...]]] = {
    "everything": (),
    "ballots": (BallotRow.id.in_(bindparam("ballot_ids", expanding=True)),),
    "study": (BallotRow.study == bindparam("study"),),
}
OF_PEOPLE: Final = BallotRow.participant_id.in_(bindparam("participant_ids", expanding=True))

Key = tuple[Any, ...]  # values of KEYS
Outcome = tuple[int, ...]  # how many of each of OUTCOMES
NOTHING: Final = (0,) * len(OUTCOMES)
LOCKED: Final = "locked participants"  # in the info of a Session
BATCH: Final = 1000  # votes in a statement: every database bounds its parameters


def lock_participants(session: Session, participant_ids: Collection[str]) -> None:
    """Until the transaction ends nobody else changes what these people did. The first lock that a transaction takes."""
    missing = [identity for identity in participant_ids if not is_locked(session, identity)]
    if missing:
        found = session.scalars(_lock_people(), {"participant_ids": missing})
        session.info.setdefault(LOCKED, set()).update(found)


def is_locked(session: Session, participant_id: str) -> bool:
    """Whether this transaction has locked the person, who is then known to exist. (A Session here is one of them.)"""
    return participant_id in session.info.get(LOCKED, ())


@contextmanager
def counted(
    session: Session,
    participant_ids: Collection[str],
    *,
    ballot_ids: Collection[str] | None = None,
    study: str | None = None,
) -> Iterator[None]:
    """Keeps the counts right while the votes of these people change: on these ballots, in this study, or all."""
    lock_participants(session, participant_ids)
    scope = "ballots" if ballot_ids is not None else "study" if study is not None else "everything"
    values = {"participant_ids": list(participant_ids), "ballot_ids": list(ballot_ids or ()), "study": study}
    session.flush()
    before = _tallies(session, _tallies_in(scope), values)
    pairs = session.scalars(_pairs_in(scope), values).all()
    yield
    session.flush()
    after = _tallies(session, _tallies_in(scope), values)
    add_tallies(session, {key: _difference(after, before, key) for key in before.keys() | after.keys()})
    recount_pairs(session, pairs)


def tally_votes(session: Session, *which: ColumnElement[bool]) -> dict[Key, Outcome]:
    """What the votes `which` make in the count table."""
    return _tallies(session, tally_rows(*which))


def tally_rows(*which: ColumnElement[bool]) -> CompoundSelect[Any]:
    """The rows, KEYS and OUTCOMES, that the votes `which` make in the count table."""
    return union_all(*(_tally_rows_of(dimension).where(*which) for dimension in TALLY_DIMENSIONS))


def add_tallies(session: Session, changes: dict[Key, Outcome]) -> None:
    """Adds these numbers to the count table."""
    rows = [
        dict(zip((*KEYS, *OUTCOMES), (*key, *change), strict=True))
        for key, change in sorted(changes.items())  # in one order everywhere, see above
        if any(change)
    ]
    if rows:
        session.connection().execute(_add_tallies(session.get_bind().dialect.name), rows)


def wrong_tallies(session: Session) -> list[str]:
    """Where the count table says something else than the votes, a sentence each; reads every vote."""
    columns = [getattr(TallyRow, name) for name in (*KEYS, *OUTCOMES)]
    some = or_(*(getattr(TallyRow, name) != 0 for name in OUTCOMES))
    kept, real = _tallies(session, select(*columns).where(some)), tally_votes(session)
    return [
        f"The count table has {kept.get(key)} for {key}, the votes make {real.get(key)}."
        for key in sorted(kept.keys() | real.keys(), key=str)
        if kept.get(key) != real.get(key)
    ]


def count_new_votes(session: Session, vote_ids: Sequence[str]) -> None:
    """Counts votes that were not there before, however many, once they are."""
    changes: dict[Key, Outcome] = {}
    pairs: set[str] = set()
    of_vote = select(AssignmentRow.pair_id).join(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
    for start in range(0, len(vote_ids), BATCH):
        these = VoteRow.id.in_(vote_ids[start : start + BATCH])
        for key, outcome in tally_votes(session, these).items():
            changes[key] = tuple(map(add, changes.get(key, NOTHING), outcome))
        pairs |= set(session.scalars(of_vote.where(these)))
    add_tallies(session, changes)
    recount_pairs(session, sorted(pairs))


def count_everything(session: Session) -> None:
    """Makes the count table anew from the votes: for votes that came from elsewhere than the Store's methods."""
    session.execute(delete(TallyRow))
    session.execute(insert(TallyRow).from_select([*KEYS, *OUTCOMES], tally_rows()))


def recount_pairs(session: Session, pair_ids: Collection[str]) -> None:
    """Writes to each of these study pairs how many of its votes count."""
    if not pair_ids:
        return
    lock, count = _recount()
    these = {"pair_ids": list(pair_ids)}
    # Locked by a statement of its own: the next one then sees the votes of everybody who had them before.
    session.execute(lock, these).all()
    session.execute(count, these, execution_options={"synchronize_session": False})


def _tallies(session: Session, rows: Executable, values: dict[str, Any] | None = None) -> dict[Key, Outcome]:
    found = session.execute(rows, values)
    return {tuple(row[: len(KEYS)]): tuple(row[len(KEYS) :]) for row in found}


def _difference(after: dict[Key, Outcome], before: dict[Key, Outcome], key: Key) -> Outcome:
    return tuple(map(sub, after.get(key, NOTHING), before.get(key, NOTHING)))


@cache
def _lock_people() -> Select[Any]:
    these = ParticipantRow.id.in_(bindparam("participant_ids", expanding=True))
    return select(ParticipantRow.id).where(these).order_by(ParticipantRow.id).with_for_update(key_share=True)


@cache
def _tallies_in(scope: str) -> CompoundSelect[Any]:
    return tally_rows(OF_PEOPLE, *SCOPES[scope])


@cache
def _pairs_in(scope: str) -> Select[Any]:
    """The study pairs that ballots of the scope are about, answered or not."""
    pairs = select(AssignmentRow.pair_id).join(BallotRow, BallotRow.id == AssignmentRow.ballot_id)
    return pairs.where(OF_PEOPLE, *SCOPES[scope]).distinct()


@cache
def _recount() -> tuple[Select[Any], Update]:
    """What locks the pairs, and what counts them."""
    these = StudyPairRow.id.in_(bindparam("pair_ids", expanding=True))
    votes = (
        select(func.count())
        .select_from(AssignmentRow)
        .join(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
        .where(AssignmentRow.pair_id == StudyPairRow.id, AssignmentRow.kind == "normal", *COUNTS)
        .correlate(StudyPairRow)
        .scalar_subquery()
    )
    lock = select(StudyPairRow.id).where(these).order_by(StudyPairRow.id).with_for_update(key_share=True)
    return lock, update(StudyPairRow).where(these).values(votes=votes)


@cache
def _add_tallies(dialect: str) -> Executable:
    new = insert_or_change(dialect, TallyRow)
    sums = {name: getattr(TallyRow, name) + getattr(new.excluded, name) for name in OUTCOMES}
    return new.on_conflict_do_update(index_elements=list(KEYS), set_=sums)


@cache
def _tally_rows_of(dimension: TallyDimension) -> Select[Any]:
    in_order = InCodePoints(VoteRow.left_variant) < InCodePoints(VoteRow.right_variant)
    left, right = VoteRow.choice == "left", VoteRow.choice == "right"
    of_comparison = select(StudyItemRow.category).where(StudyItemRow.comparison_id == BallotRow.comparison_id)
    category = literal("") if dimension == "hour" else func.coalesce(of_comparison.limit(1).scalar_subquery(), "")
    keys = (
        literal(dimension).label("dimension"),
        DIMENSION_KEYS[dimension].label("key"),
        func.coalesce(VoteRow.study, "").label("study"),
        *(VoteRow.family, VoteRow.modality, VoteRow.blind),
        category.label("category"),
        case((in_order, VoteRow.left_variant), else_=VoteRow.right_variant).label("variant_a"),
        case((in_order, VoteRow.right_variant), else_=VoteRow.left_variant).label("variant_b"),
        case((in_order, LeftRow.contender), else_=RightRow.contender).label("contender_a"),
        case((in_order, RightRow.contender), else_=LeftRow.contender).label("contender_b"),
    )
    outcomes = (
        _how_many(or_(and_(left, in_order), and_(right, ~in_order))).label("wins_a"),
        _how_many(or_(and_(right, in_order), and_(left, ~in_order))).label("wins_b"),
        _how_many(VoteRow.choice == "tie").label("ties"),
        _how_many(VoteRow.choice == "both_bad").label("both_bad"),
        _how_many(left).label("left_wins"),
    )
    return (
        select(*keys, *outcomes)
        .join(BallotRow, VoteRow.ballot_id == BallotRow.id)
        .join(LeftRow, BallotRow.left_generation_id == LeftRow.id)
        .join(RightRow, BallotRow.right_generation_id == RightRow.id)
        .where(*COUNTS)
        .group_by(text(", ".join(str(place) for place in range(2, len(keys) + 1))))
    )


def _how_many(which: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((which, 1), else_=0))
