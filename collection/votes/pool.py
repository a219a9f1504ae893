"""The part of the Store that asks about pictures made earlier, and takes the answers of those who are not known yet."""

from __future__ import annotations

import random
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from collection.database.connection import Database
from collection.database.faults import patient
from collection.database.models import BallotRow, GenerationRow, now, require_participant
from collection.errors import RefusedError
from collection.types import BallotView, Choice, NewBallot, Reveal
from collection.votes import issuable
from collection.votes.ballots import POOL_STUDY, choose_least_judged, choose_pair
from collection.votes.casting import BALLOT_LIFE, issue_ballots, record_votes
from collection.votes.vote_counts import lock_participants


class Pool(Database):
    """Ballots on stored comparisons."""

    @patient(repeatable=True)
    def next_ballot(
        self,
        participant_id: str,
        rng: random.Random,
        *,
        family: str | None = None,
        modality: str | None = None,
    ) -> BallotView | None:
        """A blind ballot on two variants of a stored comparison (same prompt, same seed), sides tossed with `rng`.

        Comparisons with the fewest ballots come first. An unanswered ballot is shown again rather than a second one
        issued. None when this person has judged, or was told the names of, everything there is.
        """
        with self.writing() as session:
            require_participant(session, participant_id, lock=True)  # two requests at once get one ballot
            theirs = {"participant_id": participant_id, "study": POOL_STUDY, "since": now() - BALLOT_LIFE}
            unanswered = session.execute(issuable.open_ballot(), theirs).first()
            if unanswered is not None:
                return BallotView(*unanswered)
            drawn = _draw(session, participant_id, rng, family, modality)
            if drawn is None:
                return None
            sides = drawn.left_generation_id, drawn.right_generation_id
            (ballot,) = issue_ballots(session, [NewBallot(*sides, participant_id, study=POOL_STUDY)])
            return BallotView(ballot.id, drawn.prompt, drawn.modality, *sides)

    def draw_ballot(
        self,
        participant_id: str,
        rng: random.Random,
        *,
        family: str | None = None,
        modality: str | None = None,
        held: str | None = None,
    ) -> BallotView | None:
        """What `next_ballot` would ask, with nothing written: its ballot has no id. See `vote_on_offer`.

        held: a generation that this person looks at now; what was made together with it is not asked about.
        """
        with self.reading() as session:
            return _draw(session, participant_id, rng, family, modality, held)

    def count_to_judge(self, family: str, participant_id: str = "") -> int:
        """How many comparisons of `family` can be asked about, at most as many as one is drawn from; with
        `participant_id` those that this person can still judge blind."""
        with self.reading() as session:
            theirs = {"family": family, "participant_id": participant_id}
            return len(session.execute(issuable.comparisons_to_judge("family"), theirs).all())

    @patient(repeatable=True)
    def vote_on_offer(self, offer: NewBallot, choice: Choice, response_time_s: float | None = None) -> Reveal:
        """Issues the ballot that was drawn (its id and moment were given out with it) and records the answer to it.

        The same answer again changes nothing. Raises RefusedError as `vote` does, and where this person was told the
        names of these pictures since they were drawn.
        """
        assert offer.id is not None
        with self.writing() as session:
            lock_participants(session, [offer.participant_id])
            if session.get(BallotRow, offer.id) is None:
                left = session.get(GenerationRow, offer.left_generation_id)
                seen = {"participant_id": offer.participant_id, "comparison_id": left and left.comparison_id}
                if session.execute(issuable.revealed_to(), seen).first() is not None:
                    raise RefusedError(
                        "The names of these pictures were told to you meanwhile; ask for a new ballot.", "answered"
                    )
                issue_ballots(session, [offer])
            return record_votes(session, [(offer.id, choice)], offer.participant_id, response_time_s)[0]


def _draw(
    session: Session,
    participant_id: str,
    rng: random.Random,
    family: str | None,
    modality: str | None,
    held: str | None = None,
) -> BallotView | None:
    scope: dict[str, Any] = {"family": family, "modality": modality}
    scope = {name: value for name, value in scope.items() if value is not None}
    theirs = scope | {"participant_id": participant_id}
    candidates = session.execute(issuable.comparisons_to_judge(*scope), theirs)
    on_screen = session.scalar(select(GenerationRow.comparison_id).where(GenerationRow.id == held)) if held else None
    comparison_id = choose_least_judged([(row[0], row[1]) for row in candidates if row[0] != on_screen], rng)
    if comparison_id is None:
        return None
    made = session.execute(issuable.generations_of(), {"comparison_id": comparison_id}).all()
    pair = choose_pair([(row.id, row.variant, row.media_sha256) for row in made], rng)
    return None if pair is None else BallotView("", made[0].prompt, made[0].modality, *pair)
