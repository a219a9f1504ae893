"""Who votes on Compare and in the pool: an opaque id that a browser keeps. Whoever only asks is not written down."""

from __future__ import annotations

import hmac
import re
import secrets

from collection.store import Store
from service.arena.limits import Turnstile
from service.arena.people import keyed_hash
from service.errors import InputError, RefusedError

PARTICIPANT_ID = re.compile(r"[0-9a-f]{32}")
HEAD = 16  # digits of an id that are chance; those after them are a signature, so that no id can be made up


class Visitors:
    """Hands ids out, and writes people down once there is something of theirs to keep."""

    def __init__(self, store: Store, secret: str, turnstile: Turnstile) -> None:
        self._store = store
        self.secret = secret
        self.turnstile = turnstile

    def named(self, claimed_id: str | None) -> str:
        """`claimed_id` where it is somebody's or was handed out here, else a new one, which the database does not know.

        Raises InputError for what is no participant's id at all.
        """
        if not claimed_id:
            return self._new()
        if not (isinstance(claimed_id, str) and PARTICIPANT_ID.fullmatch(claimed_id)):
            raise InputError(
                f"The participant id {claimed_id!r} is none; send back the one that you were given, or leave it empty."
            )
        ours = self.is_known(claimed_id) or (self._is_ours(claimed_id) and not self._store.was_erased(claimed_id))
        return claimed_id if ours else self._new()

    def is_known(self, participant_id: str) -> bool:
        """Whether the database has something of this person."""
        return self._store.has_participant(participant_id)

    def welcome(self, participant_id: str) -> None:
        """Writes the person down, once.

        Raises TooOftenError when more new people come than there is room for, RefusedError for one who was erased, who
        may come back as somebody else only.
        """
        if not self.is_known(participant_id):
            if self._store.was_erased(participant_id):
                raise RefusedError("This participant was erased; ask for a new ballot without an id.", "not_yours")
            self.turnstile.newcomer()
            self._store.create_participant(participant_id)

    def _new(self) -> str:
        head = secrets.token_hex(HEAD // 2)
        return head + self._signature(head)

    def _is_ours(self, identity: str) -> bool:
        return hmac.compare_digest(identity[HEAD:], self._signature(identity[:HEAD]))

    def _signature(self, head: str) -> str:
        return keyed_hash(head, self.secret, "visitor")[: 32 - HEAD]
