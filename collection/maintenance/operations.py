"""The part of the Store for those who look after it: flags, erasure, export, import, backup, verification."""

from __future__ import annotations

import hashlib
import logging
import math
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select, update
from sqlalchemy.orm import undefer

from collection.database import sql
from collection.database.faults import patient, shown
from collection.database.models import (
    LATENTS_DTYPE,
    AdapterRow,
    BallotRow,
    EnrolmentRow,
    GenerationRow,
    VoteRow,
    require_participant,
)
from collection.database.people import OURS, keys_in, outside_name
from collection.errors import InputError
from collection.maintenance.backups import copy_database
from collection.maintenance.belongings import SECRET_FILE, Tell, copy_belongings, make_folder, problem_of
from collection.maintenance.copying import Progress, TableCopy, copy_tables, refuse_strangers
from collection.maintenance.erasures import Erasures
from collection.maintenance.imports import ImportReport, Records, import_records
from collection.media.folder import MediaFiles, content_name
from collection.media.stores import Media, copy_media
from collection.types import (
    ExportedVote,
)
from collection.votes.comparisons import wrong_comparisons
from collection.votes.vote_counts import counted, wrong_tallies

logger = logging.getLogger(__name__)


class Upkeep(Erasures):
    """Methods behind `python -m collection`."""

    @patient(repeatable=False)
    def flag_participant(self, participant_id: str, reason: str | None) -> int:
        """Leaves a person's votes, past and future, out of every count; None lets them count again.

        Returns how many votes it concerned. Nothing is deleted.
        """
        own = VoteRow.participant_id == participant_id
        with self.writing() as session:
            require_participant(session, participant_id, lock=True).flag = reason
            session.flush()
            by_rule = (
                select(EnrolmentRow.flag)
                .where(EnrolmentRow.study == VoteRow.study, EnrolmentRow.participant_id == participant_id)
                .scalar_subquery()
            )
            with counted(session, [participant_id]):
                changed = session.execute(update(VoteRow).where(own).values(flag=reason or by_rule))
            return cast(Any, changed).rowcount

    def exported_votes(
        self, family: str | None = None, study: str | None = None, modality: str | None = None
    ) -> Iterator[ExportedVote]:
        """Every vote that was not taken back, oldest first, with what it is about; flagged ones say so.

        People are told by the names that they have outside (see people.py), since an id is what somebody votes with.
        One transaction for as long as it is iterated; memory does not grow with the number of votes.
        """
        left, right = sql.LeftRow, sql.RightRow
        statement = (
            sql.votes_with_generations(VoteRow, BallotRow, left, right)
            .options(undefer(left.latents), undefer(right.latents))
            .order_by(VoteRow.created_at, VoteRow.id)
            .execution_options(yield_per=100)
        )
        if family is not None:
            statement = statement.where(VoteRow.family == family)
        if study is not None:
            statement = statement.where(VoteRow.study == study)
        if modality is not None:
            statement = statement.where(VoteRow.modality == modality)
        with self.reading() as session:
            key = keys_in(session)[OURS]
            for vote, ballot, left_row, right_row in session.execute(statement):
                person = {"participant_id": outside_name(vote.participant_id, key)}
                yield ExportedVote(
                    replace(vote.to_record(), **person),
                    replace(ballot.to_record(), **person),
                    left_row.to_record(),
                    right_row.to_record(),
                )

    def import_votes(self, records: Records) -> ImportReport:
        """Takes in exported records, all or none, files included; see imports.py. It may be repeated.

        records: those records, or a function that is told how to ask whether a generation is known here and gives them.
        Raises InputError where something is amiss: a ballot before its generations, a vote before its ballot.
        """
        with self.writing() as session:
            return import_records(session, self.media, records)

    def backup(self, folder: Path | str, tell: Tell = logger.warning) -> Path:
        """Copies the database, while in use, to FOLDER/npo.db (PostgreSQL: npo.dump), with the media files not yet
        there, the trained adapters, the signing secret and the list of erased people; returns the copy. FOLDER is then
        a data folder. See backups.py for the way back.

        The copy is one moment of the database, checked, and replaces an older one only when whole; a backup that fails
        leaves nothing of itself. tell: is told which files are missing or damaged here, which no copy can have.
        """
        folder = Path(folder)
        try:
            with ExitStack() as undo:
                part, target = copy_database(self.url, self._engine, folder, undo)
                # after the rows that need them, which may have become more meanwhile
                self._copy_files(MediaFiles(folder / "media"), folder, undo, tell)
                part.replace(target)
                undo.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"The backup cannot be written to {folder} ({error}); give another folder.") from None
        return target

    def copy_to(
        self, target: Upkeep, progress: Progress = lambda line: None, tell: Tell = logger.warning
    ) -> list[TableCopy]:
        """Brings everything to `target`, files too where it keeps its own, or nothing; see copying.py.

        tell: is told which files are missing or damaged here. InputError where both are the same database, the target
        has something else in it, or the two differ in the end.
        """
        if self.url == target.url:
            raise InputError(f"{shown(self.url)} cannot be copied to itself; give the URL of another database.")
        self._share_erasures(target)
        refuse_strangers(self._engine, target._engine)
        self.honour_erasures(target.erased_people() - self.erased_people())
        try:
            with ExitStack() as undo:
                self._copy_files(target.media, target.data_dir, undo, tell)
                copies = copy_tables(self._engine, target._engine, progress)
                undo.pop_all()
        except OSError as error:
            raise InputError(
                f"The files cannot be written to {target.data_dir} ({error}), so nothing was copied; give another one."
            ) from None
        return copies

    def _copy_files(self, media: Media, data_dir: Path, undo: ExitStack, tell: Tell) -> None:
        with self.reading() as session:
            made = session.execute(select(GenerationRow.media_sha256, GenerationRow.media_type).distinct())
            names = [content_name(sha256, media_type) for sha256, media_type in made]
            adapters = [row.to_record() for row in session.scalars(select(AdapterRow))]
        if isinstance(media, MediaFiles):
            make_folder(media.folder, undo)
        copy_media(self.media, media, names, undo, tell)
        if data_dir.resolve() != self.data_dir.resolve():
            make_folder(data_dir, undo)
            copy_belongings(self.data_dir, data_dir, adapters, undo, tell)

    def _share_erasures(self, target: Upkeep) -> None:
        """Deletes at the target who was erased here; InputError where it is the other way round."""
        back = self.people_among(target.erased_people() - self.erased_people())
        if back:
            raise InputError(
                f"At the target {len(back)} people were erased who are still here, and a copy would bring them back; "
                f"run `python -m collection participants erase {self.outside_name(back[0])}` here, and copy again."
            )
        names = self.erased_people() - target.erased_people()
        if target.people_among(names):
            target.honour_erasures(names)

    def verify(self) -> list[str]:
        """What is wrong with the database and its media files, a sentence each; nothing is changed."""
        problems: list[str] = []
        with self.reading() as session:
            if self.url.get_backend_name() == "sqlite":
                connection = session.connection()
                checked = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
                problems += [f"The database file is damaged: {found}." for found in checked if found != "ok"]
                for table, row, *_ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
                    problems.append(f"Row {row} of {table} refers to a row that is not there.")
            for vote_id in session.scalars(sql.votes_unlike_their_ballot()):
                problems.append(f"Vote {vote_id} says something else than its ballot.")
            problems += wrong_tallies(session) + wrong_comparisons(session)
            expected = set()
            rows = session.scalars(
                select(GenerationRow).options(undefer(GenerationRow.latents)).execution_options(yield_per=100)
            )
            for row in rows:
                expected.add(content_name(row.media_sha256, row.media_type))
                problems += _problems_of(row, self.media)
            adapters = [row.to_record() for row in session.scalars(select(AdapterRow))]
            signed = session.scalar(select(EnrolmentRow.id).where(EnrolmentRow.worker_hash.is_not(None)).limit(1))
        problems += [problem for adapter in adapters if (problem := problem_of(adapter, self.data_dir))]
        if signed is not None and not (self.data_dir / SECRET_FILE).exists():
            problems.append(
                f"The secret {self.data_dir / SECRET_FILE} is missing: who takes part in a study is not known again."
            )
        strangers = (self.media.where(name) for name in self.media.names() if name not in expected)
        return problems + [f"No generation knows the media file {place}." for place in strangers]


def _problems_of(row: GenerationRow, media: Media) -> list[str]:
    problems = []
    name = content_name(row.media_sha256, row.media_type)
    content = media.content(name)
    if content is None:
        problems.append(f"The media file {media.where(name)} of generation {row.id} is missing.")
    elif hashlib.sha256(content).hexdigest() != row.media_sha256:
        problems.append(f"The media file {media.where(name)} of generation {row.id} is damaged.")
    if row.latents is not None:
        values = math.prod(int(size) for size in (row.latents_shape or "0").split("x"))
        if len(row.latents) != values * LATENTS_DTYPE.itemsize:
            problems.append(f"The latents of generation {row.id} do not fill the shape {row.latents_shape}.")
    return problems
