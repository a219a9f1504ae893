"""Opens the engine: checks the URL, sets SQLite up so that a committed vote stays committed, words the errors."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError

from collection.errors import InputError

BUSY_TIMEOUT_S: Final = 10.0
SUPPORTED: Final = {
    "sqlite": "sqlite:///data/npo.db",
    "sqlite+pysqlite": "sqlite:///data/npo.db",
    "postgresql": "postgresql://user@host/name",
    "postgresql+psycopg": "postgresql+psycopg://user@host/name",
}
# What the driver says, and what a person can do about it.
ADVICE: Final = (
    ("not a database", "it is damaged or no SQLite file; restore a backup or give another database URL"),
    ("malformed", "it is damaged; restore a backup or give another database URL"),
    ("readonly", "it cannot be written; make the file and its folder writable or give another database URL"),
    ("unable to open", "it cannot be opened; make its folder writable or give another database URL"),
    ("locked", "another process keeps it locked; close that process and try again"),
    ("I/O error", "the disk or its file system fails; move the database to a local disk"),
    ("already exists", "another program's tables are in it; give another database URL"),
    ("full", "the disk is full; free some space and try again"),
)


def check_url(text: str) -> URL:
    """The parsed database URL; raises InputError unless it names a SQLite file or a PostgreSQL server."""
    try:
        url = make_url(text)
    except ArgumentError:
        raise InputError(
            f"{text!r} is not a database URL; give one such as sqlite:///data/npo.db or postgresql://user@host/name."
        ) from None
    if url.drivername not in SUPPORTED:
        raise InputError(
            f"The database scheme {url.drivername!r} is unknown; "
            "use a URL such as sqlite:///data/npo.db or postgresql://user@host/name."
        )
    if url.get_backend_name() == "sqlite" and (url.database or ":memory:") == ":memory:":
        raise InputError("A database in memory would forget every vote; name a file, such as sqlite:///data/npo.db.")
    return url


def sqlite_path(url: URL) -> Path | None:
    """The file behind a SQLite URL, None for a server."""
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def open_engine(url: URL, *, create: bool = True) -> Engine:
    """An engine for `url`; creates a SQLite file's folder. Raises InputError where it cannot be read and written."""
    path = sqlite_path(url)
    if path is None:
        return _server_engine(url)
    if path.is_dir():
        raise InputError(f"The database path {path} is a folder; name a file in it, such as {path / 'npo.db'}.")
    if not create and not path.exists():
        raise InputError(f"There is no database at {path}; start the app once or run `python -m collection init`.")
    _make_writable_folder(path)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def for_writing(engine: Engine) -> Engine:
    """The same engine for transactions that write: SQLite takes the write lock first, so no later step can lose it."""
    return engine.execution_options(npo_writes=True)


@contextmanager
def clear_errors(url: URL) -> Iterator[None]:
    """Turns what a person can mend (a lock, a full disk, a server that is down) into one sentence.

    Anything else a driver raises is a bug of ours and stays as it is.
    """
    try:
        yield
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split()).rstrip(".")
        advice = next((hint for word, hint in ADVICE if word in reason), None)
        if isinstance(error, OperationalError) and url.get_backend_name() != "sqlite":
            advice = advice or "check the database URL and the server"
        if advice is None or isinstance(error, IntegrityError):
            raise
        raise InputError(f"The database {shown(url)} cannot be used ({reason}): {advice}.") from error


def shown(url: URL) -> str:
    """How a message names the database: never with its password."""
    return str(sqlite_path(url) or url.render_as_string(hide_password=True))


def _server_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise InputError(
            f"The database {shown(url)} needs the package {error.name!r}; run `pip install 'psycopg[binary]'`."
        ) from None


def _make_writable_folder(path: Path) -> None:
    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder {folder} for the database cannot be made ({error.strerror}); give another database URL."
        ) from None
    for needed in (folder, path):  # SQLite writes its journal beside the file
        if needed.exists() and not os.access(needed, os.W_OK):
            raise InputError(
                f"The database {path} cannot be written because {needed} is read-only; "
                "make it writable or give another database URL."
            )


def _set_up_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it returns
    _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switches to WAL, once per file. SQLite does not wait for this lock as it waits for others, so we do."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("npo_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
