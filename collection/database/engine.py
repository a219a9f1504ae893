"""Opens the engine: checks the URL, sets the database up so that a committed vote stays committed."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, ExceptionContext, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from collection.database.faults import shown
from collection.errors import InputError

BUSY_TIMEOUT_S: Final = 10.0
SUPPORTED: Final = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
MOUNT: Final = "mount"  # sqlite:////data/npo.db?mount=network
MOUNTS: Final = ("local", "network")
SERVER_POOL: Final = {
    "pool_size": 10,  # of each process; the server's max_connections (100) has to hold all of them
    "max_overflow": 10,
    "pool_timeout": 10,
    "pool_recycle": 1800,
    "pool_pre_ping": True,  # a connection that a restarted server forgot is replaced before it is used
}
SERVER_CONNECTION: Final = {  # for libpq: a server that vanished is noticed in seconds, not in hours
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "npo-lab",
}

SERVER_SETTINGS: Final = {
    "lock_timeout": f"{BUSY_TIMEOUT_S:.0f}s",  # as SQLite: nobody waits for ever
    # Our statements take a millisecond or a few; starting workers or a compiler for one takes twenty.
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "work_mem": "32MB",  # the counts of ten thousand people are sorted in memory
}


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
    if url.get_backend_name() == "sqlite":
        if (url.database or ":memory:") == ":memory:":
            raise InputError(
                "A database in memory would forget every vote; name a file, such as sqlite:///data/npo.db."
            )
        if url.query.get(MOUNT, MOUNTS[0]) not in MOUNTS:
            raise InputError(
                f"The database lies on a mount of the kind {url.query[MOUNT]!r}; choose from {', '.join(MOUNTS)}."
            )
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
    return _file_engine(url)


def for_writing(engine: Engine) -> Engine:
    """The same engine for transactions that write: SQLite takes the write lock first, so no later step can lose it."""
    return engine.execution_options(npo_writes=True)


def for_reading(engine: Engine) -> Engine:
    """The same engine for transactions that see one moment of the database (SQLite's always do)."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _server_engine(url: URL) -> Engine:
    settings = {name: value for name, value in SERVER_CONNECTION.items() if name not in url.query}
    try:
        engine = create_engine(url, connect_args=settings, hide_parameters=True, **SERVER_POOL)
    except ModuleNotFoundError as error:
        raise InputError(
            f"The database {shown(url)} needs the package {error.name!r}; run `pip install 'psycopg[binary]'`."
        ) from None
    event.listen(engine, "connect", _set_up_postgresql)
    event.listen(engine, "handle_error", _hide_values)
    return engine


def _hide_values(context: ExceptionContext) -> None:
    """Leaves out what the server says about the row that it refused, whose values tell who and would be logged."""
    said = getattr(context.original_exception, "diag", None)
    if said is not None and said.message_primary:
        for error in (context.original_exception, context.sqlalchemy_exception):
            if error is not None:
                error.args = (said.message_primary,)


def _set_up_postgresql(connection: Any, _record: Any) -> None:
    connection.autocommit = True
    for name, value in SERVER_SETTINGS.items():
        connection.execute(f"SET {name} = '{value}'")
    connection.autocommit = False


def _file_engine(url: URL) -> Engine:
    plain, arguments = url.difference_update_query([MOUNT]), {"timeout": BUSY_TIMEOUT_S}
    if url.query.get(MOUNT) == "network":
        shared: dict[str, Any] = {"check_same_thread": False}  # the threads take turns on the only connection
        one: dict[str, Any] = {"pool_size": 1, "max_overflow": 0, "pool_timeout": BUSY_TIMEOUT_S}
        engine = create_engine(plain, connect_args=arguments | shared, hide_parameters=True, poolclass=QueuePool, **one)
        event.listen(engine, "connect", _set_up_network_mount)
    else:
        engine = create_engine(plain, connect_args=arguments, hide_parameters=True)
        event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


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
    _set_up_durably(connection)
    _use_write_ahead_log(connection)


def _set_up_network_mount(connection: sqlite3.Connection, _record: Any) -> None:
    """No write-ahead log, whose shared memory a network mount cannot give, and no lock that is given back: locks of
    network mounts are not to be relied upon, so this process keeps the file for itself from the first moment."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    _set_up_durably(connection)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("COMMIT")


def _set_up_durably(connection: sqlite3.Connection) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it returns


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
