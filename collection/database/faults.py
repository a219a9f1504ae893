"""What goes wrong with a database, as one sentence; and patience with what goes wrong for a moment only."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from collection.errors import InputError, TryAgainError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PATIENCE_S: Final = 3.0
"""How long a call goes on trying while the database is away, before the person is asked to try again."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.5

# What SQLite says, and what a person can do about it.
ADVICE: Final = (
    ("not a database", "it is damaged or no SQLite file; restore a backup or give another database URL"),
    ("malformed", "it is damaged; restore a backup or give another database URL"),
    ("readonly", "it cannot be written; make the file and its folder writable or give another database URL"),
    ("unable to open", "it cannot be opened; make its folder writable or give another database URL"),
    ("I/O error", "the disk or its file system fails; move the database to a local disk"),
    ("already exists", "another program's tables are in it; give another database URL"),
    ("full", "the disk is full; free some space and try again"),
)
# What passes by itself, by the beginnings of PostgreSQL's SQLSTATE.
CONFLICTS: Final = ("40", "55P03")  # a deadlock or serialization failure, a lock not given in time
AWAY: Final = ("08", "53300", "57P01", "57P02", "57P03")  # connection lost, too many, shutting down, starting up

logger = logging.getLogger(__name__)


@contextmanager
def clear_errors(url: URL, *, opening: bool = False, committing: bool = False) -> Iterator[None]:
    """Turns what a person can mend (a full disk, a wrong URL) or wait for (a lock, a server that is away) into one
    sentence: InputError, or TryAgainError for the second kind.

    opening: say where the database is, which a visitor of the app need not know. committing: what fails now may have
    been kept all the same. Anything else that a driver raises is a bug of ours and stays as it is.
    """
    try:
        yield
    except PoolTimeoutError:
        raise TryAgainError("The database has more to do than it can; try again in a moment.", undone=True) from None
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split()).rstrip(".")
        passing = None if opening else _passing(error, reason, url)
        if passing is not None:
            logger.warning("The database %s: %s", shown(url), reason)
            saved = "it is not known whether this was saved" if committing else "nothing was saved"
            raise TryAgainError(f"{passing}, and {saved}; try again in a moment.", undone=not committing) from error
        advice = _advice(error, reason, url)
        if advice is None or isinstance(error, IntegrityError):
            raise
        if opening:
            which = f"The database {shown(url)}"
        else:
            which = "The database"
            logger.error("The database %s: %s", shown(url), reason)
        raise InputError(f"{which} cannot be used ({reason}): {advice}.") from error


def patient(*, repeatable: bool) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Makes a method of the Store try again, with growing pauses, when its transaction was undone by a passing fault.

    repeatable: the method may be done twice (a vote: the second changes nothing), so it is tried again too when the
    connection broke during the commit and nobody knows whether it was kept.
    """

    def decorate(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(method)
        def tried(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return try_for_a_while(lambda: method(*args, **kwargs), lambda error: error.undone or repeatable)

        return tried

    return decorate


def try_for_a_while(
    action: Callable[[], Result], again: Callable[[TryAgainError], bool] = lambda error: error.undone
) -> Result:
    """What `action` returns; it is repeated for PATIENCE_S while it raises a TryAgainError that `again` allows."""
    deadline, longest_s = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
    while True:
        try:
            return action()
        except TryAgainError as error:
            pause_s = random.uniform(longest_s / 2, longest_s)  # not all at the same moment
            if not again(error) or time.monotonic() + pause_s > deadline:
                raise
            time.sleep(pause_s)
            longest_s = min(2 * longest_s, LONGEST_PAUSE_S)


def shown(url: URL) -> str:
    """How a message names the database: never with its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.render_as_string(hide_password=True)


def _passing(error: DBAPIError, reason: str, url: URL) -> str | None:
    """What goes on when this error passes by itself, else None."""
    if url.get_backend_name() == "sqlite":
        locked = "database is locked" in reason
        return "The database is busy because another process keeps it locked" if locked else None
    state = getattr(error.orig, "sqlstate", None) or ""
    if state.startswith(CONFLICTS):
        return "Others are writing to the database at the same place"
    # Without a state the server did not answer. The address was right when the database was opened.
    silent = isinstance(error, OperationalError | InterfaceError) and not state
    if state.startswith(AWAY) or error.connection_invalidated or silent:
        return "The database is away for a moment"
    return None


def _advice(error: DBAPIError, reason: str, url: URL) -> str | None:
    if isinstance(error, OperationalError) and url.get_backend_name() != "sqlite":
        return "check the database URL and the server"
    if "locked" in reason:
        return "another process keeps it locked; close that process and try again"
    return next((hint for word, hint in ADVICE if word in reason), None)
