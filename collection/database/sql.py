"""The SELECT statements behind the Store, apart from it so that they can be read and explained on their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal

from sqlalchemy import BigInteger, ColumnElement, ScalarSelect, Select, bindparam, case, cast, func, or_, select

from collection.database.models import (
    AssignmentRow,
    BallotRow,
    EnrolmentRow,
    GenerationRow,
    ParticipantRow,
    TallyRow,
    VoteRow,
)
from collection.types import AllBut, TallyDimension, WhichVotes
from collection.votes.vote_counts import OUTCOMES, LeftRow, RightRow
from collection.votes.which_count import LEFT_OUT

VOTES = TallyRow.wins_a + TallyRow.wins_b + TallyRow.ties + TallyRow.both_bad

# Why a vote is no training pair, in the order in which the reasons are looked for.
DROP_REASONS = (
    *(reason.name for reason in LEFT_OUT),
    "not_blind",
    "tie",
    "both_bad",
    "missing_latents",
    "different_shapes",
)


@cache
def ballots_to_answer() -> Select[BallotRow, str, str, str, str, str, bool]:
    """Each ballot of the parameter `ballot_ids` with family, modality, left variant, right variant, its participant's
    flag (given by hand, or by the rule of the study), and whether a study gave it out."""
    assigned = AssignmentRow.ballot_id.is_not(None)
    flag = func.coalesce(ParticipantRow.flag, EnrolmentRow.flag)
    return (
        select(BallotRow, LeftRow.family, LeftRow.modality, LeftRow.variant, RightRow.variant, flag, assigned)
        .outerjoin(AssignmentRow, AssignmentRow.ballot_id == BallotRow.id)
        .outerjoin(EnrolmentRow, AssignmentRow.enrolment_id == EnrolmentRow.id)
        .join(LeftRow, BallotRow.left_generation_id == LeftRow.id)
        .join(RightRow, BallotRow.right_generation_id == RightRow.id)
        .join(ParticipantRow, BallotRow.participant_id == ParticipantRow.id)
        .where(BallotRow.id.in_(bindparam("ballot_ids", expanding=True)))
    )


def batched(ids: Sequence[str], size: int = 1000) -> Iterator[Sequence[str]]:
    """`ids` in order, at most `size` at once: every database bounds the parameters of a statement."""
    return (ids[start : start + size] for start in range(0, len(ids), size))


def ballot_views() -> Select[str, str, str, str, str]:
    """Ballot id, prompt, modality, left and right generation id, in the order of BallotView."""
    sides = (BallotRow.left_generation_id, BallotRow.right_generation_id)
    columns = (BallotRow.id, LeftRow.prompt, LeftRow.modality, *sides)
    return select(*columns).join(LeftRow, BallotRow.left_generation_id == LeftRow.id)


@cache
def ballot_to_show() -> Select[str, str, str, str, str, str, str, str, float | None]:
    """The ballot `ballot_id` with the media of both sides, in the order of StudyBallot."""
    return (
        select(
            BallotRow.id,
            LeftRow.prompt,
            LeftRow.modality,
            BallotRow.left_generation_id,
            BallotRow.right_generation_id,
            LeftRow.media_sha256,
            RightRow.media_sha256,
            LeftRow.media_type,
            LeftRow.fps,
        )
        .join(LeftRow, BallotRow.left_generation_id == LeftRow.id)
        .join(RightRow, BallotRow.right_generation_id == RightRow.id)
        .where(BallotRow.id == bindparam("ballot_id"))
    )


def outcomes(
    dimension: TallyDimension,
    *per: Any,
    family: str | None = None,
    modality: str | None = None,
    blind_only: bool = True,
    study: WhichVotes = None,
    of: Literal["variant", "contender"] = "variant",
) -> Select[Any]:
    """(*per, a, b, wins_a, wins_b, ties, both_bad, left_wins) of the votes that count, a and b being variants or
    contenders, from the count table alone: the cost does not depend on how many votes there are."""
    pair = (getattr(TallyRow, f"{of}_a"), getattr(TallyRow, f"{of}_b"))
    sums = [func.sum(getattr(TallyRow, name)).label(name) for name in OUTCOMES]
    return (
        select(*per, *pair, *sums)
        .where(
            TallyRow.dimension == dimension,
            *_scope(TallyRow, family, modality),
            *([TallyRow.blind.is_(True)] if blind_only else []),
            *of_study(TallyRow.study, study),
        )
        .group_by(*per, *pair)
        .having(func.sum(VOTES) > 0)
        .order_by(*per, *pair)
    )


def prompt_of(comparison_id: Any) -> ScalarSelect[str]:
    """The prompt of a comparison's pictures, looked up for each row: all have the same."""
    made = select(GenerationRow.prompt).where(GenerationRow.comparison_id == comparison_id)
    return made.limit(1).scalar_subquery()


def of_study(column: Any, study: WhichVotes) -> list[ColumnElement[bool]]:
    """The condition that a vote, whose study `column` has, is one of those."""
    if isinstance(study, AllBut):
        return [or_(column.is_(None), column.not_in(study.studies))] if study.studies else []
    return [column == study] if study is not None else []


def modalities(family: str | None, study: WhichVotes = None) -> Select[str]:
    """Of what there are votes that count, blind or not: image, video."""
    return (
        select(TallyRow.modality)
        .where(TallyRow.dimension == "hour", *_scope(TallyRow, family, None), *of_study(TallyRow.study, study))
        .group_by(TallyRow.modality)
        .having(func.sum(VOTES) > 0)
        .order_by(TallyRow.modality)
    )


def drop_reason(blind_only: bool) -> ColumnElement[str | None]:
    """Which of DROP_REASONS keeps a vote out of training, NULL for a usable pair."""
    return case(
        *((reason.in_sql, reason.name) for reason in LEFT_OUT),
        *([(VoteRow.blind.is_(False), "not_blind")] if blind_only else []),
        (VoteRow.choice.in_(("tie", "both_bad")), VoteRow.choice),
        (or_(LeftRow.latents_shape.is_(None), RightRow.latents_shape.is_(None)), "missing_latents"),
        (LeftRow.latents_shape != RightRow.latents_shape, "different_shapes"),
        else_=None,
    )


def votes_with_generations(*columns: Any) -> Select[Any]:
    """`columns` of all votes that were not taken back, joined with their ballot and both generations."""
    return (
        select(*columns)
        .select_from(VoteRow)
        .join(BallotRow, VoteRow.ballot_id == BallotRow.id)
        .join(LeftRow, BallotRow.left_generation_id == LeftRow.id)
        .join(RightRow, BallotRow.right_generation_id == RightRow.id)
        .where(VoteRow.withdrawn.is_(False))
    )


def preference_votes(*columns: Any, family: str, modality: str, study: str | None) -> Select[Any]:
    """`columns` of the votes on one family's pictures or clips."""
    return votes_with_generations(*columns).where(
        *_scope(VoteRow, family, modality), *([VoteRow.study == study] if study is not None else [])
    )


def _scope(row: type[VoteRow] | type[TallyRow], family: str | None, modality: str | None) -> list[ColumnElement[bool]]:
    scope = []
    if family is not None:
        scope.append(row.family == family)
    if modality is not None:
        scope.append(row.modality == modality)
    return scope


def totals(family: str | None, modality: str | None, study: WhichVotes) -> Select[int, int, int]:
    """Votes that count (blind or not), how many people cast them, on how many comparisons."""

    def of(dimension: TallyDimension, what: ColumnElement[int]) -> ScalarSelect[int]:
        which = (*_scope(TallyRow, family, modality), *of_study(TallyRow.study, study))
        scope = (TallyRow.dimension == dimension, *which)
        return select(what).where(VOTES > 0, *scope).scalar_subquery()

    keys = func.count(TallyRow.key.distinct())
    votes = func.coalesce(cast(func.sum(VOTES), BigInteger), 0)  # not PostgreSQL's decimal
    return select(of("hour", votes), of("participant", keys), of("comparison", keys))


def comparisons_asked_for(participant_id: str) -> Select[str]:
    """The comparisons this person made on the compare page (their ballots belong to no study)."""
    return (
        select(BallotRow.comparison_id)
        .where(BallotRow.participant_id == participant_id, BallotRow.study.is_(None))
        .distinct()
    )


def comparisons_others_judged(comparison_ids: Collection[str], participant_id: str) -> Select[str]:
    """Those of `comparison_ids` with a picture on somebody else's ballot."""
    return (
        select(GenerationRow.comparison_id)
        .join(
            BallotRow,
            or_(BallotRow.left_generation_id == GenerationRow.id, BallotRow.right_generation_id == GenerationRow.id),
        )
        .where(GenerationRow.comparison_id.in_(comparison_ids), BallotRow.participant_id != participant_id)
        .distinct()
    )


def comparison_about(comparison_id: str, left_generation_id: str) -> Select[str]:
    """`comparison_id` where pictures belong to it, else the comparison of the left picture: exports of old imports name
    one that no picture belongs to."""
    known = select(GenerationRow.comparison_id).where(GenerationRow.comparison_id == comparison_id).limit(1)
    left = select(GenerationRow.comparison_id).where(GenerationRow.id == left_generation_id)
    return select(func.coalesce(known.scalar_subquery(), left.scalar_subquery()))


def media_of(comparison_ids: Collection[str]) -> Select[str, str]:
    """(sha256, media type) of the comparisons' files."""
    return select(GenerationRow.media_sha256, GenerationRow.media_type).where(
        GenerationRow.comparison_id.in_(comparison_ids)
    )


def media_still_used(sha256s: Iterable[str]) -> Select[str, str]:
    """(sha256, media type) of those files that some generation has."""
    return select(GenerationRow.media_sha256, GenerationRow.media_type).where(
        GenerationRow.media_sha256.in_(list(sha256s))
    )


def votes_unlike_their_ballot() -> Select[str]:
    """Votes whose copied columns differ from the ballot and generations they were copied from."""
    return votes_with_generations(VoteRow.id).where(
        or_(
            VoteRow.participant_id != BallotRow.participant_id,
            VoteRow.family != LeftRow.family,
            VoteRow.modality != LeftRow.modality,
            VoteRow.left_variant != LeftRow.variant,
            VoteRow.right_variant != RightRow.variant,
            VoteRow.blind != BallotRow.blind,
            VoteRow.kind != BallotRow.kind,
            VoteRow.study.is_distinct_from(BallotRow.study),
        )
    )


def tallies_of_participant(participant_id: str) -> tuple[ColumnElement[bool], ...]:
    """The rows of the count table that only this person's votes made."""
    return TallyRow.dimension == "participant", TallyRow.key == participant_id


def adapters_behind(vote_ids: Collection[str]) -> Select[str | None, str | None]:
    """(aligned id, negative id) of the pictures that these votes are about, each combination once."""
    return (
        select(GenerationRow.aligned_id, GenerationRow.negative_id)
        .join(
            BallotRow,
            or_(BallotRow.left_generation_id == GenerationRow.id, BallotRow.right_generation_id == GenerationRow.id),
        )
        .join(VoteRow, VoteRow.ballot_id == BallotRow.id)
        .where(VoteRow.id.in_(vote_ids))
        .distinct()
    )
