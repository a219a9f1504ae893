"""The part of the Store that knows trained adapters and the training runs that made them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from collection.database import sql
from collection.database.connection import Database
from collection.database.models import AdapterRow, PromotionRow, TrainingRunRow, new_id, now
from collection.errors import InputError
from collection.types import ROLES, RUN_STATUSES, AdapterRecord, Lineage, Role, RunStatus, TrainingRun
from collection.validate import check_one_of

KEPT: Final = Path("adapters", "kept")  # in a data folder: the files that a copy or a backup took along


def kept_adapter(data_dir: Path, sha256: str) -> Path:
    """Where a copy of the data in `data_dir` has the adapter with this content."""
    return data_dir / KEPT / f"{sha256}.safetensors"


def find_adapter(adapter: AdapterRecord, data_dir: Path) -> Path:
    """The adapter's file: where it was trained, or where a copy put it; the former where there is neither."""
    kept = kept_adapter(data_dir, adapter.sha256)
    return kept if kept.exists() and not Path(adapter.path).exists() else Path(adapter.path)


class Adapters(Database):
    """Registered LoRAs and training runs. The `path` of a record is where its file lies now (see `find_adapter`)."""

    def register_adapter(self, adapter: AdapterRecord, promote: bool = True) -> AdapterRecord:
        """Makes a trained LoRA known and, unless told not to, puts it to use; returns it with its id and time.

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
            session.flush()
            if promote:
                session.add(_promotion(filled, filled.id))
        return filled

    def promote(self, adapter_id: str) -> AdapterRecord:
        """Puts a registered adapter to use; InputError when unknown."""
        adapter = self.get_adapter(adapter_id)
        with self.writing() as session:
            session.add(_promotion(adapter, adapter.id))
        return adapter

    def roll_back(self, family: str, role: Role, modality: str = "image") -> AdapterRecord | None:
        """Takes back the last promotion; returns what is in use now, None for the family's own.

        Nothing is forgotten: the promotion stays, marked. InputError when there is nothing to take back.
        """
        check_one_of("adapter role", role, ROLES)
        with self.writing() as session:
            standing = session.scalars(_standing(family, role, modality).limit(1)).first()
            if standing is None:
                raise InputError(
                    f"No {role} adapter of {family} was put to use, so nothing can be rolled back; "
                    "`python -m collection adapters` lists them."
                )
            standing.rolled_back_at = now()
        return next(iter(self.promoted(family, role, modality)), None)

    def promoted(self, family: str, role: Role, modality: str = "image") -> list[AdapterRecord]:
        """The adapters put to use and not rolled back, each once, the one in use first."""
        with self.reading() as session:
            ids = [row.adapter_id for row in session.scalars(_standing(family, role, modality))]
            rows = [session.get(AdapterRow, adapter_id) for adapter_id in dict.fromkeys(ids) if adapter_id]
            return [self._located(row) for row in rows if row is not None]

    def lineage(self, adapter_id: str) -> Lineage:
        """Which votes and which adapters gave this adapter; InputError when unknown."""
        adapter = self.get_adapter(adapter_id)
        if adapter.training_run_id is None:
            return Lineage(adapter, None, ())
        run, parents = self.get_training_run(adapter.training_run_id), set()
        with self.reading() as session:
            for some in sql.batched(run.vote_ids):
                for pair in session.execute(sql.adapters_behind(some)):
                    parents |= {parent for parent in pair if parent is not None}
        return Lineage(adapter, run, tuple(sorted(parents)))

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
            return [self._located(row) for row in session.scalars(statement)]

    def get_adapter(self, adapter_id: str) -> AdapterRecord:
        """One registered adapter; InputError when unknown."""
        with self.reading() as session:
            row = session.get(AdapterRow, adapter_id)
            if row is None:
                raise InputError(f"There is no adapter {adapter_id!r}; `python -m collection adapters` lists them.")
            return self._located(row)

    def _located(self, row: AdapterRow) -> AdapterRecord:
        record = row.to_record()
        return replace(record, path=str(find_adapter(record, self.data_dir)))

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

    def training_runs(self, family: str, role: Role) -> list[TrainingRun]:
        """The trainings of one family and role, latest first."""
        statement = (
            select(TrainingRunRow)
            .where(TrainingRunRow.family == family, TrainingRunRow.role == role)
            .order_by(TrainingRunRow.created_at.desc(), TrainingRunRow.id.desc())
        )
        with self.reading() as session:
            return [row.to_record() for row in session.scalars(statement)]

    def get_training_run(self, run_id: str) -> TrainingRun:
        """One training run; InputError when unknown."""
        with self.reading() as session:
            return _training_run(session, run_id).to_record()


def _promotion(adapter: AdapterRecord, adapter_id: str | None) -> PromotionRow:
    return PromotionRow(family=adapter.family, role=adapter.role, modality=adapter.modality, adapter_id=adapter_id)


def _standing(family: str, role: Role, modality: str) -> Select[PromotionRow]:
    """The promotions that were not taken back, latest first."""
    return (
        select(PromotionRow)
        .where(
            PromotionRow.family == family,
            PromotionRow.role == role,
            PromotionRow.modality == modality,
            PromotionRow.rolled_back_at.is_(None),
        )
        .order_by(PromotionRow.number.desc())
    )


def _training_run(session: Session, run_id: str) -> TrainingRunRow:
    row = session.get(TrainingRunRow, run_id)
    if row is None:
        raise InputError(f"There is no training run {run_id!r}; start one first.")
    return row
