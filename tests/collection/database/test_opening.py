"""Opening a database: fresh, twice at once, wrong, damaged, unwritable."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from collection.errors import InputError
from collection.store import Store
from tests.collection.helpers import add_comparison, open_store


def test_opening_makes_the_folder_and_an_empty_database(tmp_path: Path) -> None:
    with open_store(tmp_path / "some" / "where") as store:
        assert store.totals().votes == 0
    assert (tmp_path / "some" / "where" / "npo.db").is_file()


def test_a_database_opened_again_keeps_what_it_had(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        ids = add_comparison(store)
    with open_store(tmp_path) as store:
        assert store.get_generation(ids["base"]).variant == "base"


def test_sqlite_is_set_up_so_that_a_commit_survives_a_power_cut(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.reading() as session:
        settings = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


OPEN_AT_THE_SAME_MOMENTS = """
import sys, time
from collection.store import Store
folder, first = sys.argv[1], float(sys.argv[2])
for number in range(8):
    time.sleep(max(0.0, first + 0.1 * number - time.time()))
    with Store(f"sqlite:///{folder}/{number}.db", folder) as store:
        store.create_participant()
"""


def test_processes_that_open_a_fresh_database_together_all_succeed(tmp_path: Path) -> None:
    start = str(time.time() + 3)
    command = [sys.executable, "-c", OPEN_AT_THE_SAME_MOMENTS, str(tmp_path), start]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


@pytest.mark.parametrize("url", ["mysql://somebody@host/name", "no url at all", "sqlite+aiosqlite:///npo.db", ""])
def test_an_unknown_scheme_is_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(InputError, match=r"use a URL such as|give one such as") as caught:
        Store(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused_because_votes_are_kept(url: str) -> None:
    with pytest.raises(InputError, match="forget every vote"):
        Store(url)


def test_a_missing_database_is_not_made_when_it_should_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no database"):
        open_store(tmp_path, create=False)
    assert not (tmp_path / "npo.db").exists()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "npo.db").write_text("This is a letter, not a database. " * 20)
    with pytest.raises(InputError, match="damaged or no SQLite file"):
        open_store(tmp_path)
    assert (tmp_path / "npo.db").read_text().startswith("This is a letter")


def test_a_damaged_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    content = bytearray((tmp_path / "npo.db").read_bytes())
    content[100:8192] = b"\x55" * 8092
    (tmp_path / "npo.db").write_bytes(content)
    with pytest.raises(InputError, match="it is damaged"):
        open_store(tmp_path)


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "npo.db") as theirs:
        theirs.execute("CREATE TABLE votes (party TEXT)")
    theirs.close()
    with pytest.raises(InputError, match="another program's tables are in it"):
        open_store(tmp_path)
    with sqlite3.connect(tmp_path / "npo.db") as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("votes",)]
    theirs.close()


def test_a_mistake_of_ours_is_not_blamed_on_the_person(store: Store) -> None:
    with pytest.raises(DBAPIError), store.reading() as session:
        session.execute(text("SELECT nothing FROM nowhere"))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "npo.db").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        open_store(tmp_path)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        Store(f"sqlite:///{tmp_path}/file/npo.db")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("read_only", ["npo.db", "."])
def test_a_read_only_database_is_refused_on_opening_not_at_the_first_vote(tmp_path: Path, read_only: str) -> None:
    open_store(tmp_path).close()
    (tmp_path / read_only).chmod(0o555)
    try:
        with pytest.raises(InputError, match="cannot be written"):
            open_store(tmp_path)
    finally:
        (tmp_path / read_only).chmod(0o755)


def test_a_database_that_stays_locked_gets_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collection.database.engine.BUSY_TIMEOUT_S", 0.1)
    monkeypatch.setattr("collection.database.faults.PATIENCE_S", 0.1)
    with open_store(tmp_path) as one, open_store(tmp_path) as other, one.writing() as session:
        session.execute(text("SELECT 1"))  # takes the write lock
        with pytest.raises(InputError, match="another process keeps it locked"):
            other.create_participant()


def test_a_password_never_shows_in_a_message() -> None:
    with pytest.raises(InputError) as caught:
        Store("postgresql://somebody:secret@127.0.0.1:1/name")
    assert "secret" not in str(caught.value)
