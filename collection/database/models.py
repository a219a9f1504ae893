"""The tables. Rows turn into the plain records of records.py here, and nowhere else.

Types are portable between SQLite and PostgreSQL: text ids made by us, UTC times, JSON, binary large objects.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, Final, cast

import numpy as np
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from collection.errors import InputError
from collection.types import (
    ASSIGNMENT_KINDS,
    BALLOT_KINDS,
    CHOICES,
    ITEM_KINDS,
    ROLES,
    RUN_STATUSES,
    TALLY_DIMENSIONS,
    AdapterRecord,
    BallotKind,
    Choice,
    Generation,
    Role,
    RunStatus,
    StoredBallot,
    StoredVote,
    TrainingRun,
)
from collection.votes.contenders import contender_id, traits_of

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
LATENTS_DTYPE: Final = np.dtype("<f2")  # little-endian float16, whatever machine reads it back


def new_id() -> str:
    """An opaque id: 32 hexadecimal digits that tell nothing."""
    return uuid.uuid4().hex


def now() -> datetime:
    """The present moment, with its time zone (UTC)."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in time. SQLite forgets time zones, so they are made UTC on the way in and marked UTC on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; pass datetime.now(UTC) or the like")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it from the class)
        datetime: UtcDateTime(),
        float: Double(),
        str: String(64),
        dict[str, Any]: JSON(),
        dict[str, str]: JSON(),
        list[str]: JSON(),
    }


def one_of(column: str, allowed: tuple[str, ...]) -> CheckConstraint:
    """A CHECK that `column` holds one of `allowed`."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in allowed)})", name=column)


class ParticipantRow(Base):
    """Someone who votes, known by an opaque id alone."""

    __tablename__ = "participants"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    flag: Mapped[str | None] = mapped_column(Text)  # why this person's votes do not count
    created_at: Mapped[datetime] = mapped_column(default=now)


class PersonKeyRow(Base):
    """A key of the hashes that stand for people in exports and tombstones: "ours", and those of databases that we took
    something over from, named after themselves."""

    __tablename__ = "person_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)


class TombstoneRow(Base):
    """Somebody who was erased, by the keyed hash of the id: whatever brings them back is left out."""

    __tablename__ = "tombstones"

    person: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class GenerationRow(Base):
    """One picture or clip and everything needed to make it again; the media file lies beside the database."""

    __tablename__ = "generations"
    __table_args__ = (Index(None, "comparison_id"), Index(None, "media_sha256"), Index(None, "contender", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    comparison_id: Mapped[str]
    prompt: Mapped[str] = mapped_column(Text)
    negative_prompt: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    family: Mapped[str]
    modality: Mapped[str]
    variant: Mapped[str]
    # No foreign keys to adapters: the ones that ship with a family are files, not rows.
    aligned_id: Mapped[str | None] = mapped_column(Text)
    aligned_sha256: Mapped[str | None]
    negative_id: Mapped[str | None] = mapped_column(Text)
    negative_sha256: Mapped[str | None]
    alpha: Mapped[float]
    beta: Mapped[float]
    guidance_scale: Mapped[float]
    steps: Mapped[int]
    scheduler: Mapped[str]
    width_px: Mapped[int]
    height_px: Mapped[int]
    frames: Mapped[int]
    fps: Mapped[float | None]
    versions: Mapped[dict[str, str]]
    elapsed_s: Mapped[float]
    media_type: Mapped[str]
    media_sha256: Mapped[str]
    latents: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    latents_shape: Mapped[str | None]  # "8x16x16"
    created_at: Mapped[datetime] = mapped_column(default=now)
    contender: Mapped[str] = mapped_column(server_default="")  # see contenders.py

    @classmethod
    def from_record(cls, record: Generation) -> GenerationRow:
        """The row for `record`; its media bytes go to a file instead."""
        values = {name: value for name, value in vars(record).items() if name not in ("media", "latents")}
        return cls(
            **values
            | {
                "id": record.id or new_id(),
                "created_at": record.created_at or now(),
                "contender": contender_id(traits_of(values)),
                "latents": None if record.latents is None else pack_latents(record.latents),
                "latents_shape": None if record.latents is None else "x".join(map(str, record.latents.shape)),
            }
        )

    def to_record(self, with_latents: bool = True) -> Generation:
        """The plain record, without media bytes."""
        fields = {name: getattr(self, name) for name in Generation.__dataclass_fields__ if name in _GENERATION_COLUMNS}
        latents = unpack_latents(self.latents, self.latents_shape) if with_latents else None
        return Generation(**fields, media=None, latents=latents)


_GENERATION_COLUMNS = frozenset(GenerationRow.__table__.columns.keys()) - {"latents", "contender"}


class ComparisonRow(Base):
    """Generations made together, as `next_ballot` chooses among them; see comparisons.py."""

    __tablename__ = "comparisons"
    __table_args__ = (Index(None, "judgeable", "family", "ballots", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str]
    modality: Mapped[str]
    judgeable: Mapped[bool]  # whether people can be asked about it, see comparisons.py
    workbench: Mapped[bool] = mapped_column(server_default=false())  # made with a seed or settings of somebody's own
    ballots: Mapped[int]  # issued on it, answered or not


class BallotRow(Base):
    """A question put to one person, written before either picture is shown."""

    __tablename__ = "ballots"
    __table_args__ = (
        one_of("kind", BALLOT_KINDS),
        CheckConstraint("left_generation_id <> right_generation_id", name="two_generations"),
        Index(None, "participant_id", "comparison_id"),
        Index(None, "comparison_id"),
        Index(None, "left_generation_id"),
        Index(None, "right_generation_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    left_generation_id: Mapped[str] = mapped_column(ForeignKey("generations.id"))
    right_generation_id: Mapped[str] = mapped_column(ForeignKey("generations.id"))
    participant_id: Mapped[str] = mapped_column(ForeignKey("participants.id"))
    blind: Mapped[bool]
    kind: Mapped[str]
    study: Mapped[str | None]
    comparison_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)

    def to_record(self) -> StoredBallot:
        """The plain record."""
        return StoredBallot(
            id=self.id,
            left_generation_id=self.left_generation_id,
            right_generation_id=self.right_generation_id,
            participant_id=self.participant_id,
            blind=self.blind,
            kind=cast(BallotKind, self.kind),
            study=self.study,
            comparison_id=self.comparison_id,
            created_at=self.created_at,
        )


class VoteRow(Base):
    """An answer to a ballot. Taking it back marks it withdrawn, distrust flags it; only erasure deletes it.

    family ... study repeat what the ballot and its generations say (they never change), so that votes can be counted
    without looking at another table.
    """

    __tablename__ = "votes"
    __table_args__ = (
        UniqueConstraint("ballot_id", "participant_id"),
        one_of("choice", CHOICES),
        one_of("first_choice", CHOICES),
        Index(None, "participant_id"),
        Index(None, "created_at"),
        Index(None, "study", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    ballot_id: Mapped[str] = mapped_column(ForeignKey("ballots.id"))
    participant_id: Mapped[str] = mapped_column(ForeignKey("participants.id"))
    choice: Mapped[str]
    first_choice: Mapped[str]
    response_time_s: Mapped[float | None]
    withdrawn: Mapped[bool] = mapped_column(default=False)
    flag: Mapped[str | None] = mapped_column(Text)
    family: Mapped[str]
    modality: Mapped[str]
    left_variant: Mapped[str]
    right_variant: Mapped[str]
    blind: Mapped[bool]
    kind: Mapped[str]
    study: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    changed_at: Mapped[datetime] = mapped_column(default=now)

    def to_record(self) -> StoredVote:
        """The plain record."""
        return StoredVote(
            id=self.id,
            ballot_id=self.ballot_id,
            participant_id=self.participant_id,
            choice=cast(Choice, self.choice),
            first_choice=cast(Choice, self.first_choice),
            response_time_s=self.response_time_s,
            flag=self.flag,
            created_at=self.created_at,
            changed_at=self.changed_at,
        )


class StudyRow(Base):
    """A study; its plan (see plan.py) is fixed once it is made, so that all its votes were asked for alike."""

    __tablename__ = "studies"

    name: Mapped[str] = mapped_column(primary_key=True)
    plan: Mapped[dict[str, Any]]
    began_with: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # see pools.py
    closed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class StudyItemRow(Base):
    """One prompt and seed of a study's pool; it has a comparison once its pictures are made."""

    __tablename__ = "study_items"
    __table_args__ = (one_of("kind", ITEM_KINDS), UniqueConstraint("study", "number"), Index(None, "comparison_id"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study: Mapped[str] = mapped_column(ForeignKey("studies.name"))
    number: Mapped[int]
    kind: Mapped[str]
    prompt: Mapped[str] = mapped_column(Text)
    category: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    comparison_id: Mapped[str | None]


class StudyPairRow(Base):
    """Two pictures of an item that people are asked about. `first` and `second` are in the order of their media's
    sha256, which knows no variants. `right_answer` says which is better where that is known: training and checks."""

    __tablename__ = "study_pairs"
    __table_args__ = (
        one_of("kind", ITEM_KINDS),
        CheckConstraint("right_answer IN ('first', 'second')", name="right_answer"),
        UniqueConstraint("study", "number"),
        Index(None, "study", "kind", "votes"),
        Index(None, "item_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study: Mapped[str] = mapped_column(ForeignKey("studies.name"))
    item_id: Mapped[str] = mapped_column(ForeignKey("study_items.id"))
    number: Mapped[int]
    kind: Mapped[str]
    first_generation_id: Mapped[str] = mapped_column(ForeignKey("generations.id"))
    second_generation_id: Mapped[str] = mapped_column(ForeignKey("generations.id"))
    right_answer: Mapped[str | None]
    votes: Mapped[int] = mapped_column(default=0)  # normal ones that stand, not flagged, not skipped


class EnrolmentRow(Base):
    """A participant in a study: consent, the code to withdraw with, and keyed hashes of a platform's ids."""

    __tablename__ = "enrolments"
    __table_args__ = (
        UniqueConstraint("study", "participant_id"),
        UniqueConstraint("study", "number"),
        UniqueConstraint("study", "worker_hash"),
        UniqueConstraint("code"),
        Index(None, "participant_id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study: Mapped[str] = mapped_column(ForeignKey("studies.name"))
    participant_id: Mapped[str] = mapped_column(ForeignKey("participants.id"))
    number: Mapped[int]
    code: Mapped[str]
    consent_version: Mapped[str]
    consented_at: Mapped[datetime]
    platform: Mapped[str | None]
    worker_hash: Mapped[str | None]
    task_hash: Mapped[str | None]
    session_hash: Mapped[str | None]
    flag: Mapped[str | None] = mapped_column(Text)  # which quality rule this person's votes break
    finished_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None]


class AssignmentRow(Base):
    """Which place a ballot has in a study: whose, the how manieth, about which pair, why."""

    __tablename__ = "assignments"
    __table_args__ = (
        one_of("kind", ASSIGNMENT_KINDS),
        UniqueConstraint("enrolment_id", "number"),
        Index(None, "pair_id"),
        Index(None, "study", "created_at"),
        Index(None, "repeat_of"),
    )

    ballot_id: Mapped[str] = mapped_column(ForeignKey("ballots.id"), primary_key=True)
    study: Mapped[str] = mapped_column(ForeignKey("studies.name"))
    enrolment_id: Mapped[str] = mapped_column(ForeignKey("enrolments.id"))
    pair_id: Mapped[str] = mapped_column(ForeignKey("study_pairs.id"))
    number: Mapped[int]
    kind: Mapped[str]
    repeat_of: Mapped[str | None] = mapped_column(ForeignKey("ballots.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)


class FaultRow(Base):
    """Something that went wrong on our side while a person took part: media that failed to load, an error."""

    __tablename__ = "faults"
    __table_args__ = (Index(None, "study", "participant_id"), Index(None, "participant_id"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    study: Mapped[str] = mapped_column(ForeignKey("studies.name"))
    participant_id: Mapped[str] = mapped_column(ForeignKey("participants.id"))
    ballot_id: Mapped[str | None]
    what: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)


class TallyRow(Base):
    """How the votes that count (see vote_counts.py) came out: what makes results cost the same for a million votes.

    Every such vote is counted once in each dimension; `key` is the participant, the comparison or the hour.
    """

    __tablename__ = "tallies"
    __table_args__ = (one_of("dimension", TALLY_DIMENSIONS), Index(None, "study", "dimension", "family", "modality"))

    dimension: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    study: Mapped[str] = mapped_column(primary_key=True)  # "" where the ballot belongs to none
    family: Mapped[str] = mapped_column(primary_key=True)
    modality: Mapped[str] = mapped_column(primary_key=True)
    blind: Mapped[bool] = mapped_column(primary_key=True)
    category: Mapped[str] = mapped_column(primary_key=True)  # of a study's prompt, "" elsewhere
    variant_a: Mapped[str] = mapped_column(primary_key=True)  # before variant_b in the alphabet
    variant_b: Mapped[str] = mapped_column(primary_key=True)
    contender_a: Mapped[str] = mapped_column(primary_key=True)
    contender_b: Mapped[str] = mapped_column(primary_key=True)
    wins_a: Mapped[int]
    wins_b: Mapped[int]
    ties: Mapped[int]
    both_bad: Mapped[int]
    left_wins: Mapped[int]  # of wins_a + wins_b: those where the winner stood on the left


class TrainingRunRow(Base):
    """What was trained, from which votes."""

    __tablename__ = "training_runs"
    __table_args__ = (one_of("role", ROLES), one_of("status", RUN_STATUSES))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    family: Mapped[str]
    role: Mapped[str]
    config: Mapped[dict[str, Any]]
    vote_ids: Mapped[list[str]]
    status: Mapped[str]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    finished_at: Mapped[datetime | None]

    def to_record(self) -> TrainingRun:
        """The plain record."""
        return TrainingRun(
            family=self.family,
            role=cast(Role, self.role),
            config=self.config,
            vote_ids=tuple(self.vote_ids),
            status=cast(RunStatus, self.status),
            metrics=self.metrics,
            id=self.id,
            created_at=self.created_at,
            finished_at=self.finished_at,
        )


class AdapterRow(Base):
    """A trained LoRA that the app can offer."""

    __tablename__ = "adapters"
    __table_args__ = (one_of("role", ROLES), Index(None, "family", "role", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    family: Mapped[str]
    role: Mapped[str]
    name: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str]
    training_run_id: Mapped[str | None] = mapped_column(ForeignKey("training_runs.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    modality: Mapped[str] = mapped_column(server_default="image")

    def to_record(self) -> AdapterRecord:
        """The plain record."""
        return AdapterRecord(
            family=self.family,
            role=cast(Role, self.role),
            name=self.name,
            path=self.path,
            sha256=self.sha256,
            training_run_id=self.training_run_id,
            id=self.id,
            created_at=self.created_at,
            modality=self.modality,
        )


class PromotionRow(Base):
    """An adapter put to use. The one in use is the last that was not rolled back; where there is none, the shipped."""

    __tablename__ = "promotions"
    __table_args__ = (one_of("role", ROLES), Index(None, "family", "role", "modality"))

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    family: Mapped[str]
    role: Mapped[str]
    modality: Mapped[str]
    adapter_id: Mapped[str | None] = mapped_column(ForeignKey("adapters.id"))  # None: the family's own
    created_at: Mapped[datetime] = mapped_column(default=now)
    rolled_back_at: Mapped[datetime | None]


def require_participant(session: Session, participant_id: str, *, lock: bool = False) -> ParticipantRow:
    """The participant's row, with `lock` nobody else's until the transaction ends; InputError when unknown."""
    row = session.get(ParticipantRow, participant_id, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise InputError(f"There is no participant {participant_id!r}; create one first.")
    return row


def pack_latents(latents: np.ndarray) -> bytes:
    """The bytes of float16 `latents`, row by row, little-endian."""
    return np.ascontiguousarray(latents, dtype=LATENTS_DTYPE).tobytes()


def unpack_latents(packed: bytes | None, shape: str | None) -> np.ndarray | None:
    """The float16 array that `pack_latents` packed; a copy, so that torch may write to it."""
    if packed is None or shape is None:
        return None
    return np.frombuffer(packed, dtype=LATENTS_DTYPE).reshape([int(size) for size in shape.split("x")]).copy()
