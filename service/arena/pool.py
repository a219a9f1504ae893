"""Blind pairs of pictures that were made earlier: what `next_ballot` shows and how its answer comes back.

Somebody who never voted is offered a pair without a row in the database: the ballot's id says which two were shown on
which side, when and to whom, and is signed. The row is written with the answer, as if it had been there before.
"""

from __future__ import annotations

import hmac
import random
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from collection.store import Store
from collection.types import BallotView, Choice, NewBallot, Reveal
from collection.votes.ballots import POOL_STUDY
from service.arena.ballot_ids import OFFER, PAIR, BallotId
from service.arena.people import keyed_hash
from service.arena.visitors import Visitors
from service.errors import RefusedError
from service.operations.metrics import voting

SIGNATURE = 32  # digits
RUNNING_LOW = 10  # comparisons that somebody has left: more are to be made


@dataclass(frozen=True)
class BlindPair:
    """A ballot with its two pictures; nothing here tells the variants apart."""

    ballot_id: BallotId
    prompt: str
    left: bytes
    right: bytes
    media_type: str
    fps: float | None = None


class PoolService:
    """Issues ballots on stored comparisons of one family and takes the answers."""

    def __init__(self, store: Store, family: str, visitors: Visitors, rng: random.Random | None = None) -> None:
        self._store = store
        self._family = family
        self._visitors = visitors
        self._rng = rng or random.SystemRandom()
        self.running_low = threading.Event()
        """Set when somebody is about to have judged everything; whoever makes more clears it."""

    def next_ballot(self, participant_id: str) -> BlindPair | None:
        """A pair this person has not judged and knows no names of; None when there is none left."""
        known = self._visitors.is_known(participant_id)
        ask = self._store.next_ballot if known else self._store.draw_ballot
        view = ask(participant_id, self._rng, family=self._family)
        if view is None:
            return None
        return self._pair(view, BallotId(PAIR, view.ballot_id) if known else self._offer(participant_id, view))

    def offer(self, participant_id: str, held: BallotId | None = None) -> BlindPair | None:
        """A pair for the arena, which fetches one ahead: none of what was made together with the offer `held`.

        Nothing is written before it is answered, whoever asks. RefusedError where `held` was not offered to them.
        """
        if self._store.count_to_judge(self._family, participant_id) <= RUNNING_LOW:
            self.running_low.set()
        on_screen = self._read(held, participant_id).left_generation_id if held else None
        view = self._store.draw_ballot(participant_id, self._rng, family=self._family, held=on_screen)
        return None if view is None else self._pair(view, self._offer(participant_id, view))

    def _pair(self, view: BallotView, ballot_id: BallotId) -> BlindPair:
        left, right = self._store.shown(view.left_generation_id, view.right_generation_id)
        media = [self._store.media_path(side).read_bytes() for side in (left, right)]
        return BlindPair(ballot_id, view.prompt, media[0], media[1], left.media_type, left.fps)

    def vote(
        self, ballot_id: BallotId, participant_id: str, choice: str, response_time_s: float | None = None
    ) -> Reveal:
        """Records the answer and names the two.

        Raises InputError for a choice that there is not, RefusedError for a ballot that this person may not answer.
        """
        with voting("pool"):
            self._visitors.turnstile.vote(participant_id)
            if ballot_id.kind != OFFER:
                return self._store.vote(ballot_id.key, participant_id, cast(Choice, choice), response_time_s)
            offer = self._read(ballot_id, participant_id)
            self._visitors.welcome(participant_id)
            return self._store.vote_on_offer(offer, cast(Choice, choice), response_time_s)

    def _offer(self, participant_id: str, view: BallotView) -> BallotId:
        moment = int(datetime.now(UTC).timestamp())
        told = f"{view.left_generation_id}.{view.right_generation_id}.{moment:x}"
        return BallotId(OFFER, f"{told}.{self._signature(told, participant_id)}")

    def _read(self, ballot_id: BallotId, participant_id: str) -> NewBallot:
        """The ballot that was offered; RefusedError unless it was, to this person."""
        told, _, signature = ballot_id.key.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(told, participant_id).encode()):
            raise RefusedError(
                f"The ballot {str(ballot_id)!r} was not issued to this participant; ask for a new ballot.", "not_yours"
            )
        left, right, moment = told.split(".")
        return NewBallot(
            left,
            right,
            participant_id,
            study=POOL_STUDY,
            id=keyed_hash(ballot_id.key, self._visitors.secret, "ballot")[:32],  # the same however often it is answered
            created_at=datetime.fromtimestamp(int(moment, 16), UTC),
        )

    def _signature(self, told: str, participant_id: str) -> str:
        return keyed_hash(f"{told}.{participant_id}", self._visitors.secret, "offer")[:SIGNATURE]
