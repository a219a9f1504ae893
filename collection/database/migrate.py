"""Brings a database to the newest schema. There is no alembic.ini: the configuration is made here.

Users never run this; opening a Store does. After changing models.py a developer writes the next migration with

    python -m collection.database.migrate "what changed"
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, text

from collection.database.engine import for_writing, open_engine
from collection.database.faults import shown
from collection.errors import InputError

POSTGRESQL_LOCK: Final = 0x4E504F  # "NPO": any number that all our processes agree on


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration for the migrations packaged with `collection`, run on `connection`."""
    config = Config()
    config.set_main_option("script_location", "collection.database:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def current_revision(connection: Connection) -> str | None:
    """The revision of the schema in this database, None when it has none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine) -> None:
    """Upgrades to the newest revision in one transaction; processes that start together wait for each other.

    Raises InputError when a newer version of the lab wrote the database.
    """
    scripts = ScriptDirectory.from_config(alembic_config())
    with engine.connect() as connection:
        revision = current_revision(connection)
    if revision == scripts.get_current_head():
        return
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise InputError(
            f"The database {shown(engine.url)} was written by a newer version (schema {revision}); "
            "update the lab or give another database URL."
        )
    with for_writing(engine).begin() as connection:
        if connection.dialect.name == "postgresql":  # SQLite's write lock is held already
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # however long the first of them takes
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": POSTGRESQL_LOCK})
        command.upgrade(alembic_config(connection), "head")


def write_migration(message: str) -> None:
    """Writes the next migration from the difference between models.py and the migrations so far."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_engine(URL.create("sqlite", database=str(Path(folder) / "empty.db")))
        upgrade(engine)
        with engine.connect() as connection:
            config = alembic_config(connection)
            number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1
            command.revision(config, message, autogenerate=True, rev_id=f"{number:04d}")
        engine.dispose()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m collection.database.migrate "what changed"')
    write_migration(sys.argv[1])
