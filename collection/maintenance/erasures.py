"""Erasing people for good: what is theirs is deleted, and their names stay behind on a list (tombstones), so that no
import, copy, restored backup or data set on the Hub brings them back.

The list lies in the database and beside it, in DATA_DIR/erased.txt: an older database that is put in the place of this
one finds it there when it is opened. The names are those that people have in files (see people.py): they tell nobody
anything, and hold against every file and backup that has ever been made of this database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from collection.database import sql
from collection.database.connection import Database
from collection.database.dialects import insert_or_change
from collection.database.faults import clear_errors, patient
from collection.database.models import (
    AssignmentRow,
    BallotRow,
    ComparisonRow,
    EnrolmentRow,
    FaultRow,
    GenerationRow,
    ParticipantRow,
    TallyRow,
    TombstoneRow,
    VoteRow,
    now,
    require_participant,
)
from collection.database.people import OURS, keys_in, names_in_files, outside_name, people_named
from collection.errors import InputError
from collection.files import replacing
from collection.formats.hub import ERASED_FILE
from collection.types import ErasureReport
from collection.votes.comparisons import count_ballots
from collection.votes.vote_counts import counted

Files = set[tuple[str, str]]  # (sha256, media type)


class Erasures(Database):
    """Deleting people, and seeing to it that they stay deleted."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        known = self.erased_people()
        listed = read_erased(self._erased_file)
        if listed - known:
            self.honour_erasures(listed - known)
        elif known - listed:
            write_erased(self._erased_file, known)

    @property
    def _erased_file(self) -> Path:
        return self.data_dir / ERASED_FILE

    @patient(repeatable=False)
    def erase_participant(self, participant_id: str) -> ErasureReport:
        """Deletes a person: their id, ballots, votes, and the pictures they asked for. It cannot be undone.

        This is the one exception to never deleting. Pictures that others were asked about too stay, with the prompt,
        because those people's votes rest on them. InputError when unknown.
        """
        with self.writing() as session:
            report, orphans = _erase(session, participant_id)
            self._list(session, names_in_files(participant_id, keys_in(session).values()))
        self._forget_media(orphans)
        return report

    @patient(repeatable=True)
    def honour_erasures(self, names: Iterable[str]) -> int:
        """Takes over that people with these names were erased elsewhere; returns how many were here and are gone now.

        Whoever of them a file tells of later is left out.
        """
        wanted, orphans = set(names), Files()
        if not wanted:
            return 0
        with self.writing() as session:
            here = list(people_named(session, wanted))
            for person in here:
                orphans |= _erase(session, person)[1]
                wanted |= names_in_files(person, keys_in(session).values())
            self._list(session, wanted)
        self._forget_media(orphans)
        return len(here)

    def erased_people(self) -> set[str]:
        """The names in files of everybody who was erased."""
        with self.reading() as session:
            return set(session.scalars(select(TombstoneRow.person)))

    def was_erased(self, participant_id: str) -> bool:
        """Whether a person with this id, or this name in files, was erased."""
        with self.reading() as session:
            names = names_in_files(participant_id, keys_in(session).values())
        return not names.isdisjoint(self.erased_people())

    def outside_name(self, participant_id: str) -> str:
        """The name that a person has in files."""
        with self.reading() as session:
            return outside_name(participant_id, keys_in(session)[OURS])

    def people_among(self, names: Iterable[str]) -> list[str]:
        """Who of the people here has one of these names in files."""
        with self.reading() as session:
            return list(people_named(session, set(names)))

    def _list(self, session: Session, names: Iterable[str]) -> None:
        """Puts names on the list: in the file first, so that the list never says less than what was done."""
        session.flush()
        new = insert_or_change(session.get_bind().dialect.name, TombstoneRow)
        rows = [{"person": name, "created_at": now()} for name in sorted(names)]
        if rows:
            session.connection().execute(new.on_conflict_do_nothing(index_elements=["person"]), rows)
        write_erased(self._erased_file, set(session.scalars(select(TombstoneRow.person))))

    def _forget_media(self, orphans: Files) -> None:
        for sha256, media_type in orphans:
            self.media.remove(sha256, media_type)
        if self.url.get_backend_name() == "sqlite":  # erased pages would linger in its write-ahead log
            with clear_errors(self.url), self._engine.connect() as connection:
                connection.rollback()  # a checkpoint runs outside transactions
                cast(Any, connection.connection.driver_connection).execute("PRAGMA wal_checkpoint(TRUNCATE)")


def read_erased(path: Path) -> set[str]:
    """The names in such a file; none where it is missing."""
    try:
        return set(path.read_text(encoding="ascii").split())
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list of erased people {path} cannot be read ({error}); put it right.") from None


def write_erased(path: Path, names: Iterable[str]) -> None:
    """Writes the names, one a line, or nothing where they stand there already."""
    content = "".join(f"{name}\n" for name in sorted(names))
    if content.encode() != (path.read_bytes() if path.exists() else b""):
        with replacing(path) as part:
            part.write_text(content, encoding="ascii")


def _erase(session: Session, participant_id: str) -> tuple[ErasureReport, Files]:
    """Deletes the person's rows; returns what that was, and the media files that nobody needs any more."""
    if session.get_bind().dialect.name == "sqlite":
        session.connection().exec_driver_sql("PRAGMA secure_delete = ON")  # overwrite, not just forget
    require_participant(session, participant_id, lock=True)
    own = session.scalars(sql.comparisons_asked_for(participant_id)).all()
    shared = set(session.scalars(sql.comparisons_others_judged(own, participant_id)))
    alone = [comparison for comparison in own if comparison not in shared]
    media = set(session.execute(sql.media_of(alone)).tuples())
    session.execute(delete(FaultRow).where(FaultRow.participant_id == participant_id))
    with counted(session, [participant_id]):
        votes = session.execute(delete(VoteRow).where(VoteRow.participant_id == participant_id))
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
    report = ErasureReport(
        votes=cast(Any, votes).rowcount,
        ballots=cast(Any, ballots).rowcount,
        generations=cast(Any, erased).rowcount,
        generations_kept=len(kept),
    )
    return report, orphans
