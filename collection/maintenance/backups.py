"""Copies of a database in use, one moment of it each: SQLite by its backup API, PostgreSQL by pg_dump.

Restoring: FOLDER/npo.db is a database like any other, open it where it lies or put it back. FOLDER/npo.dump goes into
an empty database with `pg_restore --no-owner --dbname postgresql://user@host/new FOLDER/npo.dump`.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Final, cast

from sqlalchemy import URL, Engine

from collection.database.engine import sqlite_path
from collection.database.faults import clear_errors
from collection.errors import InputError
from collection.maintenance.belongings import make_folder

FILE_NAMES: Final = {"sqlite": "npo.db", "postgresql": "npo.dump"}


def copy_database(url: URL, engine: Engine, folder: Path, undo: ExitStack) -> tuple[Path, Path]:
    """Writes the copy below a temporary name, checked and on the disk; returns (that name, the one it is to take).
    `undo` takes back what was made.

    Raises InputError where the copy would replace the database itself, cannot be made, or is damaged.
    """
    target = folder / FILE_NAMES[url.get_backend_name()]
    source = sqlite_path(url)
    if source is not None and target.resolve() == source.resolve():
        raise InputError(f"The backup {target} would replace the database itself; give another folder.")
    make_folder(folder, undo)
    part = target.with_suffix(".part")
    part.unlink(missing_ok=True)
    undo.callback(part.unlink, missing_ok=True)
    if source is None:
        _dump_server(url, part)
    else:
        with clear_errors(url):
            _copy_file(engine, part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    return part, target


def _copy_file(engine: Engine, part: Path) -> None:
    copy = sqlite3.connect(part)
    try:
        with engine.connect() as connection:
            connection.rollback()
            cast(sqlite3.Connection, connection.connection.driver_connection).backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        copy.close()
    if found != "ok":
        raise InputError(f"The copy of the database is damaged ({found}); run `python -m collection verify`.")


def _dump_server(url: URL, part: Path) -> None:
    where = url.set(drivername="postgresql", password=None).render_as_string()
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})  # no process list shows it
    _run("pg_dump", "--format=custom", "--no-owner", f"--file={part}", f"--dbname={where}", environment=environment)
    _run("pg_restore", "--list", str(part), environment=environment)


def _run(*command: str, environment: dict[str, str]) -> None:
    try:
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(
            f"{command[0]} is not installed; install PostgreSQL's client programs (Debian: postgresql-client), or copy "
            "the database with `python -m collection copy-to sqlite:///FILE`."
        ) from None
    if ended.returncode != 0:
        reason = " ".join(ended.stderr.split()).rstrip(".")
        raise InputError(f"{command[0]} could not copy the database ({reason}); check the database URL and the server.")
