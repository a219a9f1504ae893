"""Taking in votes that a file holds, inside one transaction: each once however often and however grown it comes, all or
none, files included.

A vote that is here already is left as it is. It is known by its id, or by being the same person's answer on the same
two pictures at the same moment, which is what formats without our ids still tell. People come under the names that they
have outside (see people.py). Those who were erased are left out, and with them the pictures that nobody else was asked
about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, or_, select, text
from sqlalchemy.orm import Session

from collection.account import Account
from collection.database import sql
from collection.database.columns import check_fits
from collection.database.models import BallotRow, Base, GenerationRow, ParticipantRow, TombstoneRow, VoteRow
from collection.database.people import OURS, keys_in, names_in_files, outside_name
from collection.errors import InputError
from collection.formats.foreign import Importable, LeftOut
from collection.media.stores import Media
from collection.texts import UNWRITABLE, unwritable
from collection.types import BALLOT_KINDS, CHOICES, Generation, StoredBallot, StoredVote
from collection.validate import check_latents, check_one_of
from collection.votes.comparisons import count_ballots, note_comparisons, set_workbench_apart
from collection.votes.vote_counts import count_new_votes

Records = Iterable[Importable] | Callable[[Callable[[str], bool]], Iterable[Importable]]
Record = Generation | StoredBallot | StoredVote

MENDED: Final = ("prompt", "negative_prompt", "family", "variant", "flag")  # texts kept without what cannot be kept
POSTGRESQL_LOCK: Final = 0x4E504F49  # any number that all our processes agree on: imports take turns


@dataclass(frozen=True)
class ImportReport:
    """What became of a file. str() tells it in one line.

    generations, ballots, votes: those that were new. here: votes that were here before. erased: votes of people who
    were erased. mended: texts that were kept without what no database can hold. entries: what was no vote.
    """

    generations: int
    ballots: int
    votes: int
    here: int = 0
    erased: int = 0
    mended: int = 0
    entries: Account = field(default_factory=lambda: Account("entry", "vote"))

    def __str__(self) -> str:
        told = f"Imported {self.votes} votes, {self.ballots} ballots and {self.generations} generations"
        if self.here:
            told += f"; {self.here} votes were here already"
        if self.erased:
            told += f"; left out {self.erased} votes of people who were erased"
        if self.entries.left_out:
            told += f"; left out {self.entries.left_out.total()} ({self.entries.reasons})"
        if self.mended:
            told += f"; {self.mended} texts are kept without their NUL characters or halves of surrogate pairs"
        return f"{told}."


def import_records(session: Session, media: Media, records: Records) -> ImportReport:
    """Takes in `records`; what it wrote of files is gone again when this raises."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRESQL_LOCK})
    intake = _Intake(session, media)
    try:
        for record in records(intake.knows) if callable(records) else records:
            intake.take(record)
        return intake.finish()
    except BaseException:
        intake.forget_files(intake.written)
        raise


class _Intake:
    """One import and what it took so far."""

    def __init__(self, session: Session, media: Media) -> None:
        self._session, self._media = session, media
        keys = keys_in(session)
        self._key, self._keys = keys[OURS], tuple(keys.values())
        self._erased = set(session.scalars(select(TombstoneRow.person)))
        if self._erased and session.get_bind().dialect.name == "sqlite":
            session.connection().exec_driver_sql("PRAGMA secure_delete = ON")  # overwrite, not just forget
        self._new: dict[type, list[str]] = {Generation: [], StoredBallot: [], StoredVote: []}
        self._known: set[str] = set()  # generations that are certainly here
        self._issued: Counter[str] = Counter()
        self._of_erased: set[str] = set()  # generations that somebody who was erased was asked about
        self._waiting: dict[str, StoredBallot] = {}  # ballots whose votes are still to come
        self._erased_ballots: set[str] = set()
        self.written: set[tuple[str, str]] = set()
        self._here = self._left = self._mended = 0
        self._entries = Account("entry", "vote")

    def knows(self, generation_id: str) -> bool:
        """Whether a generation is kept here."""
        if generation_id not in self._known and self._session.get(GenerationRow, generation_id) is not None:
            self._known.add(generation_id)
        return generation_id in self._known

    def take(self, record: Importable) -> None:
        """Takes in one record, after those that it refers to."""
        if isinstance(record, LeftOut):
            self._entries.leave_out(record.reason, record.place)
            return
        record = self._mend(record)
        if isinstance(record, Generation):
            self._take_generation(record)
        elif isinstance(record, StoredBallot):
            self._take_ballot(record)
        else:
            self._take_vote(record)

    def finish(self) -> ImportReport:
        """Counts what was taken in."""
        for ballot in self._waiting.values():
            self._keep_ballot(ballot)
        dropped = self._drop_what_only_the_erased_saw()
        count_new_votes(self._session, self._new[StoredVote])
        comparisons: set[str] = set()
        for some in sql.batched(self._new[Generation]):
            of_these = select(GenerationRow.comparison_id).where(GenerationRow.id.in_(some))
            comparisons.update(self._session.scalars(of_these))
        for some in sql.batched(sorted(comparisons)):
            note_comparisons(self._session, some)
            set_workbench_apart(self._session, some)
        count_ballots(self._session, self._issued)
        generations, ballots, votes = (len(ids) for ids in self._new.values())
        counts = (self._here, self._left, self._mended)
        return ImportReport(generations - dropped, ballots, votes, *counts, self._entries)

    def forget_files(self, files: Iterable[tuple[str, str]]) -> None:
        """Deletes these files, which nothing here was made with."""
        for sha256, media_type in files:
            self._media.remove(sha256, media_type)

    def _take_generation(self, record: Generation) -> None:
        check_latents(record.latents)
        if record.id is None:
            raise InputError("An imported generation needs its id; export it again.")
        if self.knows(record.id):
            return
        if record.media is not None:
            name = (record.media_sha256, record.media_type)
            if not self._media.has(*name):
                self.written.add(name)
            self._media.write(record.media, *name)
        self._add(f"the generation {record.id!r}", GenerationRow.from_record(record))
        self._known.add(record.id)
        self._new[Generation].append(record.id)

    def _take_ballot(self, record: StoredBallot) -> None:
        check_one_of("ballot kind", record.kind, BALLOT_KINDS)
        if self._session.get(BallotRow, record.id) is not None:
            return
        sides = (record.left_generation_id, record.right_generation_id)
        for generation_id in sides:
            if not self.knows(generation_id):
                raise InputError(f"The ballot {record.id!r} comes before its generation {generation_id!r}.")
        if self._is_erased(record.participant_id):
            self._of_erased.update(sides)
            self._erased_ballots.add(record.id)
        else:
            self._waiting[record.id] = record

    def _take_vote(self, record: StoredVote) -> None:
        for choice in (record.choice, record.first_choice):
            check_one_of("choice", choice, CHOICES)
        if record.ballot_id in self._erased_ballots:
            self._left += 1
            return
        ballot = self._waiting.pop(record.ballot_id, None)
        here = select(VoteRow.id).where(or_(VoteRow.id == record.id, VoteRow.ballot_id == record.ballot_id))
        known = self._session.scalar(here.limit(1)) is not None
        if known or (ballot is not None and self._is_answered(ballot, record.created_at)):
            self._here += 1
            return
        if ballot is not None:
            self._keep_ballot(ballot)
        found = self._session.execute(sql.ballots_to_answer(), {"ballot_ids": [record.ballot_id]}).one_or_none()
        if found is None or not self._is_called(found[0].participant_id, record.participant_id):
            raise InputError(
                f"The vote {record.id!r} comes before its ballot {record.ballot_id!r} or is another person's."
            )
        self._keep_vote(record, *found)

    def _keep_ballot(self, record: StoredBallot) -> None:
        person = outside_name(record.participant_id, self._key)
        if self._session.get(ParticipantRow, person) is None:
            self._add("a participant", ParticipantRow(id=person, created_at=record.created_at))
        about = sql.comparison_about(record.comparison_id, record.left_generation_id)
        comparison_id = self._session.scalar(about)
        assert comparison_id is not None  # the left generation is here
        row = BallotRow(**vars(record) | {"participant_id": person, "comparison_id": comparison_id})
        self._add(f"the ballot {record.id!r}", row)
        self._issued[comparison_id] += 1
        self._new[StoredBallot].append(record.id)

    def _keep_vote(self, record: StoredVote, ballot: BallotRow, *traits: Any) -> None:
        """traits: as in `ballots_to_answer`."""
        family, modality, left_variant, right_variant, _flag, _assigned = traits
        row = VoteRow(
            **vars(record) | {"participant_id": ballot.participant_id},
            withdrawn=False,
            family=family,
            modality=modality,
            left_variant=left_variant,
            right_variant=right_variant,
            blind=ballot.blind,
            kind=ballot.kind,
            study=ballot.study,
        )
        self._add(f"the vote {record.id!r}", row)
        self._new[StoredVote].append(record.id)

    def _add(self, what: str, row: Base) -> None:
        check_fits(what, row)
        self._session.add(row)
        self._session.flush()

    def _is_erased(self, name: str) -> bool:
        return not self._erased.isdisjoint(names_in_files(name, self._keys)) if self._erased else False

    def _is_called(self, identity: str, name: str) -> bool:
        """Whether a file may call this person so."""
        told, known = (names_in_files(each, self._keys) for each in (name, identity))
        return name == identity or not told.isdisjoint(known)

    def _is_answered(self, ballot: StoredBallot, moment: datetime) -> bool:
        """Whether the same person's answer on the same two sides at the same moment is here: formats without our ids
        tell of it under another one."""
        same = (
            BallotRow.left_generation_id == ballot.left_generation_id,
            BallotRow.right_generation_id == ballot.right_generation_id,
            VoteRow.created_at == moment,
        )
        answers = select(VoteRow.participant_id).join(BallotRow, BallotRow.id == VoteRow.ballot_id).where(*same)
        return any(self._is_called(person, ballot.participant_id) for person in self._session.scalars(answers))

    def _mend(self, record: Record) -> Record:
        """`record` without what cannot be kept in texts, which is counted; InputError where that stands in an id."""
        texts = {name: value for name, value in vars(record).items() if isinstance(value, str)}
        bad = {name: value for name, value in texts.items() if name != "participant_id" and UNWRITABLE.search(value)}
        wrong = next((name for name in bad if name not in MENDED), None)
        if wrong is not None:
            raise InputError(f"The {wrong} {bad[wrong]!r} has {unwritable(bad[wrong])}; export it again.")
        self._mended += len(bad)
        mended: dict[str, Any] = {name: UNWRITABLE.sub("", value) for name, value in bad.items()}
        return replace(record, **mended) if mended else record

    def _drop_what_only_the_erased_saw(self) -> int:
        """Takes back the new generations that nobody is left to have been asked about; returns how many."""
        alone = self._of_erased & set(self._new[Generation])
        dropped: list[str] = []
        for some in sql.batched(sorted(alone)):
            for side in (BallotRow.left_generation_id, BallotRow.right_generation_id):
                alone -= set(self._session.scalars(select(side).where(side.in_(some))))
            dropped += [identity for identity in some if identity in alone]
        files: set[tuple[str, str]] = set()
        for some in sql.batched(dropped):
            these = GenerationRow.id.in_(some)
            files.update(
                self._session.execute(
                    select(GenerationRow.media_sha256, GenerationRow.media_type).where(these)
                ).tuples()
            )
            self._session.execute(delete(GenerationRow).where(these))
        used = set(self._session.execute(sql.media_still_used(sha256 for sha256, _ in files)).tuples())
        self.forget_files((files - used) & self.written)
        return len(dropped)
