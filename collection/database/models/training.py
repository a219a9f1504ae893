"""What was trained, from which votes, and what is in use."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    ForeignKey,
    Index,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from collection.database.models.base import Base, new_id, now, one_of
from collection.types import (
    ROLES,
    RUN_STATUSES,
    AdapterRecord,
    Role,
    RunStatus,
    TrainingRun,
)


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
