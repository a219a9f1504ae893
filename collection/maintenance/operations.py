"""The part of the Store for those who look after it: flags, erasure, export, import, backup, verification."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, undefer

from collection.database import sql
from collection.database.connection import Database
from collection.database.faults import clear_errors, patient, shown
from collection.database.models import (
    LATENTS_DTYPE,
    AssignmentRow,
    BallotRow,
    ComparisonRow,
    EnrolmentRow,
    FaultRow,
    GenerationRow,
    ParticipantRow,
    TallyRow,
    VoteRow,
    require_participant,
)
from collection.errors import InputError
from collection.maintenance.backups import copy_database
from collection.maintenance.copying import Progress, TableCopy, copy_tables
from collection.media.folder import MediaFiles, content_name
from collection.media.stores import Media, copy_media
from collection.types import (
    BALLOT_KINDS,
    CHOICES,
    ErasureReport,
    ExportedVote,
    Generation,
    ImportReport,
    StoredBallot,
    StoredVote,
)
from collection.validate import check_latents, check_one_of
from collection.votes.comparisons import count_ballots, note_comparisons, wrong_comparisons
from collection.votes.vote_counts import count_new_votes, counted, wrong_tallies

Importable = Generation | StoredBallot | StoredVote


class Upkeep(Database):
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

    @patient(repeatable=False)
    def erase_participant(self, participant_id: str) -> ErasureReport:
        """Deletes a person: their id, ballots, votes, and the pictures they asked for. It cannot be undone.

        This is the one exception to never deleting. Pictures that others were asked about too stay, with the prompt,
        because those people's votes rest on them. InputError when unknown.
        """
        with self.writing() as session:
            if self.url.get_backend_name() == "sqlite":
                session.connection().exec_driver_sql("PRAGMA secure_delete = ON")  # overwrite, not just forget
            require_participant(session, participant_id, lock=True)
            own = session.scalars(sql.comparisons_asked_for(participant_id)).all()
            shared = set(session.scalars(sql.comparisons_others_judged(own, participant_id)))
            alone = [comparison for comparison in own if comparison not in shared]
            media = set(session.execute(sql.media_of(alone)).tuples())
            session.execute(delete(FaultRow).where(FaultRow.participant_id == participant_id))
            own_votes = VoteRow.participant_id == participant_id
            with counted(session, [participant_id]):
                votes = session.execute(delete(VoteRow).where(own_votes))
            session.execute(delete(TallyRow).where(*sql.tallies_of_participant(participant_id)))
            enrolments = select(EnrolmentRow.id).where(EnrolmentRow.participant_id == participant_id)
            session.execute(delete(AssignmentRow).where(AssignmentRow.enrolment_id.in_(enrolments)))
            session.execute(delete(EnrolmentRow).where(EnrolmentRow.participant_id == participant_id))
            own_ballots = BallotRow.participant_id == participant_id
            issued = Counter(session.scalars(select(BallotRow.comparison_id).where(own_ballots)))
            ballots = session.execute(delete(BallotRow).where(own_ballots))
            kept = session.scalars(select(GenerationRow.id).where(GenerationRow.comparison_id.in_(shared))).all()
            erased = session.execute(delete(GenerationRow).where(GenerationRow.comparison_id.in_(alone)))
            session.execute(delete(ParticipantRow).where(ParticipantRow.id == participant_id))
            count_ballots(session, {comparison: -number for comparison, number in issued.items()})
            session.execute(delete(ComparisonRow).where(ComparisonRow.id.in_(alone)))
            orphans = media - set(session.execute(sql.media_still_used(sha for sha, _ in media)).tuples())
        for sha256, media_type in orphans:
            self.media.remove(sha256, media_type)
        self._empty_journal()
        return ErasureReport(
            votes=cast(Any, votes).rowcount,
            ballots=cast(Any, ballots).rowcount,
            generations=cast(Any, erased).rowcount,
            generations_kept=len(kept),
        )

    def _empty_journal(self) -> None:
        """Moves everything out of SQLite's write-ahead log, where erased pages would otherwise linger."""
        if self.url.get_backend_name() == "sqlite":
            with clear_errors(self.url), self._engine.connect() as connection:
                connection.rollback()  # a checkpoint runs outside transactions
                cast(Any, connection.connection.driver_connection).execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def exported_votes(
        self, family: str | None = None, study: str | None = None, modality: str | None = None
    ) -> Iterator[ExportedVote]:
        """Every vote that was not taken back, oldest first, with what it is about; flagged ones say so.

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
            for vote, ballot, left_row, right_row in session.execute(statement):
                yield ExportedVote(vote.to_record(), ballot.to_record(), left_row.to_record(), right_row.to_record())

    def import_votes(self, records: Iterable[Importable]) -> ImportReport:
        """Takes in exported records, all or none; those already here are left as they are, so it may be repeated.

        A generation or ballot comes before what refers to it. Raises InputError where that or anything else is amiss.
        """
        new: dict[type[Importable], list[str]] = {Generation: [], StoredBallot: [], StoredVote: []}
        comparisons: set[str] = set()
        issued: Counter[str] = Counter()
        with self.writing() as session:
            for record in records:
                if isinstance(record, Generation):
                    comparisons.add(record.comparison_id)
                    added = _import_generation(session, record, self.media)
                elif isinstance(record, StoredBallot):
                    comparison_id = _import_ballot(session, record)
                    added = comparison_id is not None
                    issued.update([comparison_id] if comparison_id else [])
                else:
                    added = _import_vote(session, record)
                session.flush()
                new[type(record)] += [str(record.id)] if added else []
            count_new_votes(session, new[StoredVote])
            for some in sql.batched(sorted(comparisons)):
                note_comparisons(session, some)
            count_ballots(session, issued)
        return ImportReport(len(new[Generation]), len(new[StoredBallot]), len(new[StoredVote]))

    def backup(self, folder: Path | str) -> Path:
        """Copies the database, while in use, to FOLDER/npo.db (PostgreSQL: npo.dump), and the media files not yet
        there; returns the copy. See backups.py for the way back.

        The copy is one moment of the database, checked, and replaces an older one only when whole.
        """
        try:
            part, target = copy_database(self.url, self._engine, Path(folder))
            # after the rows that need them, which may have become more meanwhile
            copy_media(self.media, MediaFiles(target.parent / "media"))
            part.replace(target)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"The backup cannot be written to {folder} ({error}); give another folder.") from None
        return target

    def copy_to(self, target: Database, progress: Progress = lambda line: None) -> list[TableCopy]:
        """Brings everything to `target`, media files too where it keeps its own; see copying.py.

        InputError where both are the same database, or the two differ in the end.
        """
        if self.url == target.url:
            raise InputError(f"{shown(self.url)} cannot be copied to itself; give the URL of another database.")
        copy_media(self.media, target.media)
        with clear_errors(target.url, opening=True), clear_errors(self.url, opening=True):
            return copy_tables(self._engine, target._engine, progress)

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
        strangers = (self.media.where(name) for name in self.media.names() if name not in expected)
        return problems + [f"No generation knows the media file {place}." for place in strangers]


def _import_generation(session: Session, record: Generation, media: Media) -> bool:
    check_latents(record.latents)
    if record.media is not None:
        media.write(record.media, record.media_sha256, record.media_type)
    if record.id is None:
        raise InputError("An imported generation needs its id; export it again.")
    if session.get(GenerationRow, record.id) is not None:
        return False
    session.add(GenerationRow.from_record(record))
    return True


def _import_ballot(session: Session, record: StoredBallot) -> str | None:
    """The comparison that the ballot is about, None where it was here already."""
    check_one_of("ballot kind", record.kind, BALLOT_KINDS)
    if session.get(BallotRow, record.id) is not None:
        return None
    for generation_id in (record.left_generation_id, record.right_generation_id):
        if session.get(GenerationRow, generation_id) is None:
            raise InputError(f"The ballot {record.id!r} comes before its generation {generation_id!r}.")
    if session.get(ParticipantRow, record.participant_id) is None:
        session.add(ParticipantRow(id=record.participant_id, created_at=record.created_at))
        session.flush()
    comparison_id = session.scalar(sql.comparison_about(record.comparison_id, record.left_generation_id))
    session.add(BallotRow(**vars(record) | {"comparison_id": comparison_id}))
    return comparison_id


def _import_vote(session: Session, record: StoredVote) -> bool:
    for choice in (record.choice, record.first_choice):
        check_one_of("choice", choice, CHOICES)
    found = session.execute(sql.ballots_to_answer(), {"ballot_ids": [record.ballot_id]}).one_or_none()
    if found is None or found[0].participant_id != record.participant_id:
        raise InputError(f"The vote {record.id!r} comes before its ballot {record.ballot_id!r} or is another person's.")
    here = select(VoteRow.id).where((VoteRow.id == record.id) | (VoteRow.ballot_id == record.ballot_id))
    if session.scalar(here.limit(1)) is not None:
        return False
    ballot, family, modality, left_variant, right_variant, _flag, _assigned = found
    session.add(
        VoteRow(
            **vars(record),
            withdrawn=False,
            family=family,
            modality=modality,
            left_variant=left_variant,
            right_variant=right_variant,
            blind=ballot.blind,
            kind=ballot.kind,
            study=ballot.study,
        )
    )
    return True


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
