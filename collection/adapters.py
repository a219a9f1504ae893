"""The part of the Store that knows trained adapters and the training runs that made them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from collection.checks import check_one_of
from collection.database import Database
from collection.errors import InputError
from collection.models import AdapterRow, TrainingRunRow, new_id, now
from collection.records import ROLES, RUN_STATUSES, AdapterRecord, Role, RunStatus, TrainingRun


class Adapters(Database):
    """Registered LoRAs and training runs."""

    def register_adapter(self, adapter: AdapterRecord) -> AdapterRecord:
        """Makes a trained LoRA known; returns it with its id (the given one or a new one) and time.

        Raises InputError for an unknown role or training run, or an id already taken.
        """
        check_one_of("adapter role", adapter.role, ROLES)
        filled = replace(adapter, id=adapter.id or new_id(), created_at=adapter.created_at or now())
        with self.writing() as session:
            if session.get(AdapterRow, filled.id) is not None:
                raise InputError(f"The adapter id {filled.id!r} is taken; give another one or none.")
            if filled.training_run_id is not None:
                _training_run(session, filled.training_run_id)
            session.add(AdapterRow(**vars(filled)))
        return filled

    def adapters(
        self, family: str | None = None, role: Role | None = None, modality: str | None = None
    ) -> list[AdapterRecord]:
        """The registered adapters, newest first; None means every family, role or modality."""
        statement = select(AdapterRow).order_by(AdapterRow.created_at.desc(), AdapterRow.id.desc())
        if family is not None:
            statement = statement.where(AdapterRow.family == family)
        if role is not None:
            statement = statement.where(AdapterRow.role == role)
        if modality is not None:
            statement = statement.where(AdapterRow.modality == modality)
        with self.reading() as session:
            return [row.to_record() for row in session.scalars(statement)]

    def get_adapter(self, adapter_id: str) -> AdapterRecord:
        """One registered adapter; InputError when unknown."""
        with self.reading() as session:
            row = session.get(AdapterRow, adapter_id)
            if row is None:
                raise InputError(f"There is no adapter {adapter_id!r}; `python -m collection adapters` lists them.")
            return row.to_record()

    def start_training_run(self, run: TrainingRun) -> str:
        """Notes that a training begins and on which votes; returns its id."""
        check_one_of("adapter role", run.role, ROLES)
        check_one_of("training status", run.status, RUN_STATUSES)
        filled = replace(run, id=run.id or new_id(), created_at=run.created_at or now())
        assert filled.id is not None
        with self.writing() as session:
            session.add(TrainingRunRow(**vars(filled) | {"vote_ids": list(run.vote_ids)}))
        return filled.id

    def finish_training_run(self, run_id: str, status: RunStatus, metrics: dict[str, Any]) -> None:
        """Notes how a training ended ("finished" or "failed") and its numbers; InputError when unknown."""
        check_one_of("training status", status, RUN_STATUSES)
        with self.writing() as session:
            row = _training_run(session, run_id)
            row.status, row.metrics, row.finished_at = status, metrics, now()

    def get_training_run(self, run_id: str) -> TrainingRun:
        """One training run; InputError when unknown."""
        with self.reading() as session:
            return _training_run(session, run_id).to_record()


def _training_run(session: Session, run_id: str) -> TrainingRunRow:
    row = session.get(TrainingRunRow, run_id)
    if row is None:
        raise InputError(f"There is no training run {run_id!r}; start one first.")
    return row
