"""The only door to the database: one method is one transaction, committed before it returns.

    store = Store("sqlite:///data/npo.db", "data")

A method either does all it says or nothing. Bad input raises InputError, and so does a database that cannot be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select, update
from sqlalchemy.orm import undefer

from collection.adapters import Adapters
from collection.database import sql
from collection.database.faults import patient
from collection.database.models import (
    BallotRow,
    ComparisonRow,
    GenerationRow,
    ParticipantRow,
    VoteRow,
    new_id,
    now,
)
from collection.database.people import OURS, is_outside_name, keys_in, outside_name, rename_participant
from collection.errors import InputError
from collection.maintenance.operations import Upkeep
from collection.studies.participants import Studies
from collection.types import BallotView, Choice, Generation, NewBallot, Reveal
from collection.validate import check_latents
from collection.votes.casting import issue_ballots, record_votes
from collection.votes.comparisons import note_comparisons
from collection.votes.own_votes import OwnVotes
from collection.votes.pool import Pool
from collection.votes.vote_counts import counted
from collection.votes.vote_queries import Results


class Store(Pool, OwnVotes, Studies, Results, Adapters, Upkeep):
    """What people made and said. Safe to share between threads; several processes may open the same database.

    This file holds the way of a vote: generations, participants, ballots, votes. studies.py, results.py,
    adapters.py and upkeep.py hold the rest of the methods.
    """

    # Generations

    @patient(repeatable=False)
    def add_generations(self, generations: Sequence[Generation], *, workbench: bool = False) -> list[str]:
        """Keeps pictures or clips with their media and latents, all or none; returns their ids in order.

        workbench: they were made with a seed or settings of somebody's own, so that nobody else is asked about them.
        Raises InputError when media are missing or do not match their sha256, or latents are not finite float16.
        """
        for generation in generations:
            check_latents(generation.latents)
            if generation.media is None:
                raise InputError(f"The generation of {generation.prompt!r} has no media; give the encoded bytes.")
        for generation in generations:  # files first: a row never points at a file that is not there
            self.media.write(cast(bytes, generation.media), generation.media_sha256, generation.media_type)
        with self.writing() as session:
            rows = [GenerationRow.from_record(generation) for generation in generations]
            session.add_all(rows)
            note_comparisons(session, {row.comparison_id for row in rows}, workbench=workbench)
            return [row.id for row in rows]

    def get_generation(self, generation_id: str) -> Generation:
        """One generation with its latents; `media_path` says where its media are. InputError when unknown."""
        with self.reading() as session:
            row = session.get(GenerationRow, generation_id, options=[undefer(GenerationRow.latents)])
            if row is None:
                raise InputError(f"There is no generation {generation_id!r}; it may belong to another database.")
            return row.to_record()

    def shown(self, *generation_ids: str) -> list[Generation]:
        """Several generations in this order, without latents: what is needed to show them. InputError when unknown."""
        with self.reading() as session:
            rows = session.scalars(select(GenerationRow).where(GenerationRow.id.in_(generation_ids)))
            found = {row.id: row.to_record(with_latents=False) for row in rows}
        missing = next((identity for identity in generation_ids if identity not in found), None)
        if missing is not None:
            raise InputError(f"There is no generation {missing!r}; it may belong to another database.")
        return [found[identity] for identity in generation_ids]

    def comparison(self, comparison_id: str) -> list[Generation]:
        """The generations made together, without latents, in the order in which they were made."""
        with self.reading() as session:
            rows = session.scalars(
                select(GenerationRow)
                .where(GenerationRow.comparison_id == comparison_id)
                .order_by(GenerationRow.created_at, GenerationRow.id)
            )
            return [row.to_record(with_latents=False) for row in rows]

    def is_workbench(self, comparison_id: str) -> bool:
        """Whether a comparison was made with a seed or settings of somebody's own."""
        with self.reading() as session:
            return bool(session.scalar(select(ComparisonRow.workbench).where(ComparisonRow.id == comparison_id)))

    def has_generation(self, generation_id: str) -> bool:
        """Whether a generation with this id is kept here."""
        with self.reading() as session:
            return session.scalar(select(GenerationRow.id).where(GenerationRow.id == generation_id)) is not None

    def media_path(self, generation: Generation) -> Path:
        """The media file of a generation."""
        return self.media.path(generation.media_sha256, generation.media_type)

    # Participants and ballots

    @patient(repeatable=False)
    def create_participant(self, participant_id: str | None = None) -> str:
        """A new participant, under an id that was given out already or under a new one; returns the id."""
        with self.writing() as session:
            identity = participant_id or new_id()
            if session.get(ParticipantRow, identity) is None:
                session.add(ParticipantRow(id=identity))
            return identity

    def has_participant(self, participant_id: str) -> bool:
        """Whether somebody with this id votes here (a browser may remember one from a database long gone).

        A name that people have outside (see people.py) is nobody's id: whoever has the file knows it. An id whose
        person came back from an export, under such a name, is that person's again.
        """
        if is_outside_name(participant_id):
            return False
        with self.reading() as session:
            if session.get(ParticipantRow, participant_id) is not None:
                return True
            name = outside_name(participant_id, keys_in(session)[OURS])
            if session.get(ParticipantRow, name) is None:
                return False
        with self.writing() as session:
            rename_participant(session, name, participant_id)
        return True

    @patient(repeatable=False)
    def create_ballots(self, ballots: Sequence[NewBallot]) -> list[str]:
        """Issues ballots, before anything is shown; returns their opaque ids in order, all or none.

        Raises InputError for an unknown participant, generation or kind, and for two generations that cannot be
        compared (another prompt, family or modality).
        """
        with self.writing() as session:
            return [row.id for row in issue_ballots(session, ballots)]

    def ballots(self, comparison_id: str, participant_id: str) -> list[BallotView]:
        """The ballots this person was issued on a comparison as it was made, oldest first; not those of the pool."""
        with self.reading() as session:
            found = session.execute(
                sql.ballot_views()
                .where(
                    BallotRow.comparison_id == comparison_id,
                    BallotRow.participant_id == participant_id,
                    BallotRow.study.is_(None),
                )
                .order_by(BallotRow.created_at, BallotRow.id)
            )
            return [BallotView(*row) for row in found]

    # Votes

    def vote(self, ballot_id: str, participant_id: str, choice: Choice, response_time_s: float | None = None) -> Reveal:
        """Records one answer; it is on the disk when this returns. See `votes`."""
        return self.votes([(ballot_id, choice)], participant_id, response_time_s)[0]

    @patient(repeatable=True)
    def votes(
        self,
        answers: Sequence[tuple[str, Choice]],
        participant_id: str,
        response_time_s: float | None = None,
    ) -> list[Reveal]:
        """Records several answers [(ballot_id, choice), ...] at once, all or none; returns the names in order.

        Saying it again changes nothing and makes no second vote. Since the names are told now, another answer to the
        same ballot is refused, and so is one after it was taken back.
        Raises InputError for an unknown choice, RefusedError for a ballot that was not issued to this person, was open
        for more than BALLOT_LIFE, or was answered otherwise.
        """
        with self.writing() as session:
            return record_votes(session, answers, participant_id, response_time_s)

    @patient(repeatable=True)
    def unvote(self, ballot_ids: Sequence[str], participant_id: str) -> int:
        """Takes answers back, for good: they are kept, marked withdrawn, and count nowhere.

        Returns how many were taken back.
        """
        with self.writing() as session, counted(session, [participant_id], ballot_ids=ballot_ids):
            changed = session.execute(
                update(VoteRow)
                .where(
                    VoteRow.ballot_id.in_(ballot_ids),
                    VoteRow.participant_id == participant_id,
                    VoteRow.withdrawn.is_(False),
                )
                .values(withdrawn=True, changed_at=now())
            )
            return cast(Any, changed).rowcount
