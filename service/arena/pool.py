"""Blind pairs of pictures that were made earlier: what `next_ballot` shows and how its answer comes back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import cast

from collection.store import Store
from collection.types import Choice, Reveal
from service.arena.limits import Limits, Turnstile
from service.operations.metrics import voting


@dataclass(frozen=True)
class BlindPair:
    """A ballot with its two pictures; nothing here tells the variants apart."""

    ballot_id: str
    prompt: str
    left: bytes
    right: bytes
    media_type: str


class PoolService:
    """Issues ballots on stored comparisons of one family and takes the answers."""

    def __init__(
        self, store: Store, family: str, rng: random.Random | None = None, turnstile: Turnstile | None = None
    ) -> None:
        self._store = store
        self._family = family
        self._rng = rng or random.SystemRandom()
        self._turnstile = turnstile or Turnstile(Limits())

    def next_ballot(self, participant_id: str) -> BlindPair | None:
        """A pair this person has not judged and knows no names of; None when there is none left."""
        view = self._store.next_ballot(participant_id, self._rng, family=self._family)
        if view is None:
            return None
        left, right = self._store.shown(view.left_generation_id, view.right_generation_id)
        return BlindPair(
            view.ballot_id,
            view.prompt,
            self._store.media_path(left).read_bytes(),
            self._store.media_path(right).read_bytes(),
            left.media_type,
        )

    def vote(self, ballot_id: str, participant_id: str, choice: str) -> Reveal:
        """Records the answer and names the two.

        Raises InputError for a choice that there is not, RefusedError for a ballot that this person may not answer.
        """
        with voting("pool"):
            self._turnstile.vote(participant_id)
            return self._store.vote(ballot_id, participant_id, cast(Choice, choice))
