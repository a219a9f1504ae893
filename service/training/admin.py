"""Who may retrain: whoever knows the password, or is signed in to the Hub under a name on the list."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable

from service.errors import InputError
from service.operations.metrics import ADMIN_FAILURES

TRIES, WITHIN_S = 5, 60.0  # wrong passwords before everybody waits
TOKEN_LIFE_S = 12 * 3600.0


class AdminGate:
    """Hands out tokens that a page keeps on the server's side; every action shows its token again."""

    def __init__(self, password: str | None, users: Iterable[str] = ()) -> None:
        """Without a password and without users nobody is let in."""
        self._password = _digest(password) if password else None
        self._users = frozenset(users)
        self._tokens: dict[str, float] = {}
        self._failures: deque[float] = deque(maxlen=TRIES)
        self._lock = threading.Lock()

    @property
    def takes_password(self) -> bool:
        """Whether there is a password to know."""
        return self._password is not None

    @property
    def takes_users(self) -> bool:
        """Whether there is a list of names."""
        return bool(self._users)

    def admit(self, password: str) -> str:
        """A token for the right password; raises InputError for a wrong one, and after several for anyone a while."""
        with self._lock:
            now = time.monotonic()
            if len(self._failures) == TRIES and now - self._failures[0] < WITHIN_S:
                raise InputError("Too many wrong passwords; wait a minute.")
            given = _digest(password if isinstance(password, str) else "")
            if self._password is None or not hmac.compare_digest(given, self._password):
                self._fail(now)
                raise InputError("That is not the password of NPO_ADMIN_PASSWORD.")
            return self._issue(now)

    def admit_user(self, name: str | None) -> str:
        """A token for a Hub user on the list; raises InputError for anyone else."""
        with self._lock:
            now = time.monotonic()
            if not name or name not in self._users:
                self._fail(now)
                raise InputError(f"{name or 'Nobody'} is not on the list of NPO_ADMINS.")
            return self._issue(now)

    def require(self, token: str | None) -> None:
        """Raises InputError unless the token was handed out and is young."""
        with self._lock:
            issued = self._tokens.get(token or "")
        if issued is None or time.monotonic() - issued > TOKEN_LIFE_S:
            raise InputError("You are not signed in as an admin, or too long ago; sign in.")

    def _fail(self, now: float) -> None:
        self._failures.append(now)
        ADMIN_FAILURES.inc()

    def _issue(self, now: float) -> str:
        token = secrets.token_urlsafe(32)
        self._tokens = {old: at for old, at in self._tokens.items() if now - at <= TOKEN_LIFE_S} | {token: now}
        return token


def _digest(text: str) -> bytes:
    """Of equal length whatever the text, so that comparing takes equal time."""
    return hashlib.sha256(text.encode()).digest()
