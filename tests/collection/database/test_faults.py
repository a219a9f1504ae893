"""A database that is away for a moment, or on a network mount."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select, text
from sqlalchemy.exc import IntegrityError

from collection.database.models import EnrolmentRow, VoteRow
from collection.errors import InputError, TryAgainError
from collection.store import Store
from collection.types import NewBallot
from tests.collection.helpers import add_comparison, cast
from tests.collection.study_helpers import enrol, make_study
from tests.programs.postgres import PostgresCluster


@pytest.fixture
def cluster() -> Iterator[PostgresCluster]:
    """A server for this test alone, which it may stop."""
    with PostgresCluster() as opened:
        yield opened


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_server_that_stops_and_starts_during_votes_loses_none_and_needs_no_restart_of_ours(
    cluster: PostgresCluster, tmp_path: Path, mode: str
) -> None:
    thanked: list[str] = []
    told: list[str] = []
    over = threading.Event()
    with Store(cluster.new_database(), tmp_path) as store:
        ids = add_comparison(store)
        people = [store.create_participant() for _ in range(4)]

        def vote_on(person: str) -> None:
            while not over.is_set():
                try:
                    (ballot,) = store.create_ballots([NewBallot(ids["base"], ids["aligned"], person)])
                    store.vote(ballot, person, "left")
                    thanked.append(ballot)
                except TryAgainError as error:
                    told.append(str(error))

        with ThreadPoolExecutor(4) as pool:
            voters = [pool.submit(vote_on, person) for person in people]
            wait_until(lambda: len(thanked) > 10)
            cluster.stop(mode)  # type: ignore[arg-type]
            wait_until(lambda: len(told) >= 4 or any(voter.done() for voter in voters))
            while_away = len(thanked)
            cluster.start()
            wait_until(lambda: len(thanked) > while_away + 20 or any(voter.done() for voter in voters))
            over.set()
            for voter in voters:
                voter.result()
        with store.reading() as session:
            found = set(session.scalars(select(VoteRow.ballot_id)))
        assert len(thanked) > while_away + 20
        assert set(thanked) <= found
        assert store.verify() == []
    assert all("try again" in sentence and "\n" not in sentence and "npo@" not in sentence for sentence in told), told


@pytest.mark.needs("postgresql")
def test_a_short_restart_is_not_noticed(cluster: PostgresCluster, tmp_path: Path) -> None:
    with Store(cluster.new_database(), tmp_path) as store:
        ids, person = add_comparison(store), store.create_participant()
        with ThreadPoolExecutor(1) as pool:
            cluster.stop()
            vote = pool.submit(cast, store, person, ids["base"], ids["aligned"], "left")
            time.sleep(0.3)
            assert not vote.done()
            cluster.start()
            vote.result(timeout=20)
        assert store.totals().votes == 1


@pytest.mark.needs("postgresql")
def test_a_server_that_is_not_there_at_all_is_told_with_what_to_check(cluster: PostgresCluster, tmp_path: Path) -> None:
    url = cluster.new_database()
    cluster.stop()
    with pytest.raises(InputError, match="check the database URL and the server"):
        Store(url, tmp_path)


def wait_until(true: Callable[[], bool], patience_s: float = 60) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_on_a_network_mount_one_connection_keeps_the_file_without_a_log_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collection.database.engine.BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("collection.database.faults.PATIENCE_S", 0.1)
    url = f"sqlite:///{tmp_path / 'npo.db'}?mount=network"
    with Store(url, tmp_path) as store:
        with store.reading() as session:
            assert session.execute(text("PRAGMA journal_mode")).scalar() == "delete"
            assert session.execute(text("PRAGMA locking_mode")).scalar() == "exclusive"
            assert session.execute(text("PRAGMA synchronous")).scalar() == 2
        ids = add_comparison(store)
        with ThreadPoolExecutor(8) as pool:  # threads take turns on the only connection
            list(
                pool.map(
                    lambda _: cast(store, store.create_participant(), ids["base"], ids["aligned"], "tie"), range(24)
                )
            )
        assert store.totals().votes == 24
        assert not list(tmp_path.glob("npo.db-wal")) + list(tmp_path.glob("npo.db-shm"))
        with pytest.raises(InputError, match="another process keeps it locked"):
            Store(url, tmp_path)
        other = sqlite3.connect(tmp_path / "npo.db", timeout=0.1)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("SELECT count(*) FROM votes")
        other.close()
        store.backup(tmp_path / "backup")
        assert store.verify() == []
    with Store(f"sqlite:///{tmp_path / 'npo.db'}", tmp_path) as local:
        assert local.totals().votes == 24
    with Store(url, tmp_path) as again:  # and back, from a file that had a write-ahead log
        assert again.totals().votes == 24
    assert not list(tmp_path.glob("npo.db-*"))


def test_an_unknown_kind_of_mount_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose from local, network"):
        Store(f"sqlite:///{tmp_path / 'npo.db'}?mount=floppy", tmp_path)


def test_a_full_disk_is_told_to_visitors_without_the_place_of_the_file_and_loses_nothing(tmp_path: Path) -> None:
    """The file may not grow any more, as on a full disk; what SQLite says is the same."""
    with Store(f"sqlite:///{tmp_path / 'npo.db'}", tmp_path) as store:
        add_comparison(store, "c1")
        full = {"now": True}

        @event.listens_for(store._engine, "begin")
        def no_more_pages(connection: Connection) -> None:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {1 if full['now'] else 10**6}")  # 1: as it is now

        def fill() -> None:
            for number in range(1000):
                add_comparison(store, f"more-{number}")

        with pytest.raises(InputError, match="the disk is full; free some space and try again") as refused:
            fill()
        assert str(tmp_path) not in str(refused.value)
        full["now"] = False
        assert len(store.comparison("c1")) == 3
        assert len(add_comparison(store, "after")) == 3
        # The pictures that came before the refusal lie there unused, which harms nothing.
        assert all("No generation knows the media file" in problem for problem in map(str, store.verify()))


def test_an_error_of_the_database_tells_no_values(store: Store) -> None:
    """On SQLite and PostgreSQL, whose server adds the row to what it says."""
    make_study(store)
    person = enrol(store)
    with store.reading() as session:
        enrolled = session.scalars(select(EnrolmentRow)).one()
        row = {column.name: getattr(enrolled, column.name) for column in EnrolmentRow.__table__.columns}
    with pytest.raises(IntegrityError) as refused, store.writing() as session:
        session.add(EnrolmentRow(**row | {"id": "another", "number": 99}))
    assert "UNIQUE" in str(refused.value).upper()
    assert [secret for secret in (person.participant_id, person.code) if secret in str(refused.value)] == []
