"""People, what they were asked and what they said, and how often."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from collection.database.models.base import Base, new_id, now, one_of
from collection.errors import InputError
from collection.types import (
    BALLOT_KINDS,
    CHOICES,
    TALLY_DIMENSIONS,
    BallotKind,
    Choice,
    StoredBallot,
    StoredVote,
)


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


def require_participant(session: Session, participant_id: str, *, lock: bool = False) -> ParticipantRow:
    """The participant's row, with `lock` nobody else's until the transaction ends; InputError when unknown."""
    row = session.get(ParticipantRow, participant_id, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise InputError(f"There is no participant {participant_id!r}; create one first.")
    return row
