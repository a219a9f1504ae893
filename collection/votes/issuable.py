"""What a person can be asked about blind: the SELECT statements behind the pool, and what studies leave out."""

from __future__ import annotations

from functools import cache
from typing import Final

from sqlalchemy import ColumnElement, Select, bindparam, or_, select
from sqlalchemy.orm import aliased

from collection.database import sql
from collection.database.models import (
    AssignmentRow,
    BallotRow,
    ComparisonRow,
    GenerationRow,
    StudyPairRow,
    VoteRow,
)

MOST_CANDIDATES: Final = 50  # comparisons that the next ballot is drawn from

SamePicture = aliased(GenerationRow, name="same_picture")


@cache
def open_ballot() -> Select[str, str, str, str, str]:
    """The oldest ballot of `study` since the moment `since` that the person `participant_id` did not answer."""
    return (
        sql.ballot_views()
        .outerjoin(VoteRow, VoteRow.ballot_id == BallotRow.id)
        .where(
            BallotRow.participant_id == bindparam("participant_id"),
            BallotRow.study == bindparam("study"),
            BallotRow.created_at > bindparam("since"),
            VoteRow.id.is_(None),
        )
        .order_by(BallotRow.created_at, BallotRow.id)
        .limit(1)
    )


@cache
def comparisons_to_judge(*narrowed: str) -> Select[str, int]:
    """(comparison, ballots so far) of MOST_CANDIDATES that the person `participant_id` can still judge blind, fewest
    ballots first; `narrowed` names those parameters, of family and modality, that they have to agree with.

    One answer names two variants, and the third follows, so a comparison is out as soon as one of its ballots was
    answered or was not blind; and so is every other with one of its pictures, byte for byte.
    """
    # One look for each comparison until enough are found; NOT EXISTS would be planned as a join.
    revealed = _revealed(SamePicture.comparison_id == ComparisonRow.id).correlate(ComparisonRow).scalar_subquery()
    return (
        select(ComparisonRow.id, ComparisonRow.ballots)
        .where(ComparisonRow.judgeable, revealed.is_(None))
        .where(*(getattr(ComparisonRow, name) == bindparam(name) for name in narrowed))
        .order_by(ComparisonRow.ballots, ComparisonRow.id)
        .limit(MOST_CANDIDATES)
    )


@cache
def revealed_to() -> Select[str]:
    """A row when the person `participant_id` was told names of pictures of the comparison `comparison_id`."""
    return _revealed(SamePicture.comparison_id == bindparam("comparison_id"))


def _revealed(*which: ColumnElement[bool]) -> Select[str]:
    """One of the ballots that told the person `participant_id` names (answered, or not blind) of pictures with the same
    bytes as the pictures `which`, in terms of SamePicture."""
    return (
        select(BallotRow.id)
        .select_from(SamePicture)
        .join(GenerationRow, GenerationRow.media_sha256 == SamePicture.media_sha256)
        .join(BallotRow, BallotRow.comparison_id == GenerationRow.comparison_id)
        .outerjoin(VoteRow, VoteRow.ballot_id == BallotRow.id)
        .where(
            BallotRow.participant_id == bindparam("participant_id"),
            *which,
            or_(VoteRow.id.is_not(None), BallotRow.blind.is_(False)),
        )
        .limit(1)
    )


@cache
def revealed_pairs() -> Select[str]:
    """The pairs of the study `study` with a picture whose name the person `participant_id` was told outside of studies
    (byte for byte the same one)."""
    told = (
        select(SamePicture.media_sha256)
        .join(BallotRow, BallotRow.comparison_id == SamePicture.comparison_id)
        .outerjoin(VoteRow, VoteRow.ballot_id == BallotRow.id)
        .outerjoin(AssignmentRow, AssignmentRow.ballot_id == BallotRow.id)
        .where(
            BallotRow.participant_id == bindparam("participant_id"),
            AssignmentRow.ballot_id.is_(None),
            or_(VoteRow.id.is_not(None), BallotRow.blind.is_(False)),
        )
    )
    sides = (StudyPairRow.first_generation_id, StudyPairRow.second_generation_id)
    return (
        select(StudyPairRow.id)
        .join(GenerationRow, or_(*(GenerationRow.id == side for side in sides)))
        .where(StudyPairRow.study == bindparam("study"), GenerationRow.media_sha256.in_(told))
    )


@cache
def generations_of() -> Select[str, str, str, str, str]:
    """Id, variant, prompt, modality and sha256 of the generations of the comparison `comparison_id`."""
    made = GenerationRow
    columns = (made.id, made.variant, made.prompt, made.modality, made.media_sha256)
    made_together = GenerationRow.comparison_id == bindparam("comparison_id")
    return select(*columns).where(made_together).order_by(GenerationRow.id)
