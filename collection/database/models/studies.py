"""Studies: what is shown to whom, in which order."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from collection.database.models.base import Base, new_id, now, one_of
from collection.types import (
    ASSIGNMENT_KINDS,
    ITEM_KINDS,
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
