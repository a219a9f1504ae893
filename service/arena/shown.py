"""The comparisons that Compare showed: what is remembered of them until they are answered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from collection.store import Store
from service.arena.picks import Pick, ballots_in_order, panel_order, panel_pairs
from service.errors import RefusedError

REMEMBERED = 2000  # kept in memory without their pictures; older ones are read back from the store


@dataclass
class Shown:
    """A comparison that was shown to a person."""

    participant_id: str
    generation_ids: list[str]  # in panel order
    media_sha256: list[str]  # likewise
    workbench: bool
    blind: bool  # whether what is answered now is
    ballot_ids: list[str] = field(default_factory=list)  # of `pairs`; after an undo those of the open ballots
    shown_at_s: float | None = None
    pick: Pick | None = None
    answering: threading.Lock = field(default_factory=threading.Lock)  # one answer at a time, of this comparison alone

    def pairs(self) -> list[tuple[int, int]]:
        """The (left, right) panel numbers of every ballot."""
        return panel_pairs(len(self.generation_ids))

    def asked(self) -> list[bool]:
        """Of each of `pairs` whether anybody could tell the two apart."""
        return [self.media_sha256[left] != self.media_sha256[right] for left, right in self.pairs()]


class ShownComparisons:
    """Finds them again; any number of threads may ask."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shown: OrderedDict[str, Shown] = OrderedDict()
        self._remembering = threading.Lock()

    def remember(self, comparison_id: str, shown: Shown) -> Shown:
        """Keeps it, and returns what is kept: the first of two that were read back at once."""
        with self._remembering:
            kept = self._shown.setdefault(comparison_id, shown)
            while len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)
            return kept

    def recall(self, comparison_id: str, participant_id: str) -> Shown:
        """What is known of it; from the store when the app was restarted since it was shown. RefusedError unless it was
        shown to this person."""
        with self._remembering:
            known = self._shown.get(comparison_id)
        if known is None and isinstance(comparison_id, str) and isinstance(participant_id, str):
            known = self._read_back(comparison_id, participant_id)
        if known is None or known.participant_id != participant_id:
            raise RefusedError(
                f"The comparison {comparison_id!r} was not shown to this participant; generate a new one.",
                "unknown_ballot" if known is None else "not_yours",
            )
        return known

    def _read_back(self, comparison_id: str, participant_id: str) -> Shown | None:
        made = {generation.id: generation for generation in self._store.comparison(comparison_id)}
        pairs = panel_pairs(len(made))
        issued = self._store.ballots(comparison_id, participant_id)  # of this page: those of the pool are apart
        ballots = issued[-len(pairs) :] if pairs else []  # after an undo the newest are the open ones
        if not pairs or len(ballots) < len(pairs):
            return None
        order = panel_order(ballots)
        workbench = self._store.is_workbench(comparison_id)
        shown = Shown(
            participant_id,
            order,
            [made[generation_id].media_sha256 for generation_id in order],
            workbench=workbench,
            blind=not workbench and len(issued) == len(pairs),
            ballot_ids=[ballot.ballot_id for ballot in ballots_in_order(ballots, order)],
        )
        return self.remember(comparison_id, shown)
