"""python -m collection copy-to: from one database to the other kind, whole or not there, checked."""

from __future__ import annotations

import hashlib
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, event, func, select, update

from collection.__main__ import main
from collection.database.models import Base, FaultRow, ParticipantRow, TallyRow
from collection.errors import InputError
from collection.statistics.summary import summarise
from collection.store import Store
from collection.types import AdapterRecord
from tests.collection.helpers import add_comparison, cast, open_store
from tests.collection.study_helpers import make_study, take_part


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    """Something in every table."""
    make_study(store)
    person, _ = take_part(store, lambda ballot: "left")
    store.report_fault("pilot", person, "a picture did not load")
    ids = add_comparison(store, prompt="zwei Äpfel, 'süß' & \N{RED APPLE}")
    cast(store, store.create_participant(), ids["base"], ids["aligned"], "tie")
    store.register_adapter(adapter_record(tmp_path / "runs" / "a.safetensors", "new"))
    return store


def adapter_record(file: Path, name: str) -> AdapterRecord:
    """A file that stands for a trained adapter, to be registered."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(f"weights of {name}".encode())
    return AdapterRecord("emoji", "negative", name, str(file), hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.fixture
def other(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty database of the other kind, with the same media."""
    if store.url.get_backend_name() == "sqlite":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'other.db'}"
    with Store(url, tmp_path / "data") as opened:
        yield opened


def test_the_copy_says_the_same_and_goes_on_as_the_original_would(filled: Store, other: Store, tmp_path: Path) -> None:
    copies = filled.copy_to(other)
    assert {copy.table: copy.rows for copy in copies}["assignments"] > 0
    assert all(copy.written == copy.rows for copy in copies)
    assert list(map(str, other.exported_votes())) == list(map(str, filled.exported_votes()))
    assert summarise(other) == summarise(filled)
    assert other.study_progress() == filled.study_progress()
    assert other.adapters() == filled.adapters()
    assert other.verify() == []
    take_part(other, lambda ballot: "right")
    other.register_adapter(adapter_record(tmp_path / "runs" / "b.safetensors", "newer"))
    assert other.promoted("emoji", "negative")[0].name == "newer"
    assert other.verify() == []


def test_a_second_copy_brings_only_what_changed(filled: Store, other: Store) -> None:
    filled.copy_to(other)
    vote = next(filled.exported_votes(study="pilot"))
    filled.answer(vote.ballot.id, filled.participant_of_code(vote.vote.participant_id), "tie")
    copies = {copy.table: copy.written for copy in filled.copy_to(other)}
    assert copies["votes"] == 1
    assert copies["generations"] == copies["ballots"] == copies["participants"] == 0
    assert other.verify() == []


def test_a_copy_that_broke_off_left_nothing(filled: Store, other: Store) -> None:
    class PowerCutError(Exception):
        pass

    def cut_at_votes(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO votes"):
            raise PowerCutError

    event.listen(other._engine, "before_cursor_execute", cut_at_votes)
    with pytest.raises(PowerCutError):
        filled.copy_to(other)
    event.remove(other._engine, "before_cursor_execute", cut_at_votes)
    assert rows_in(other) == {"person_keys": 1}
    filled.copy_to(other)
    assert other.totals() == filled.totals()


def rows_in(store: Store) -> dict[str, int]:
    """How many rows the tables have that have any."""
    with store.reading() as session:
        counts = {
            table.name: session.scalar(select(func.count()).select_from(table)) for table in Base.metadata.sorted_tables
        }
    return {name: count for name, count in counts.items() if count}


def test_a_target_with_votes_of_its_own_is_refused(filled: Store, other: Store) -> None:
    other.create_participant()
    with pytest.raises(InputError, match="1 rows in participants that are not here, so nothing was copied"):
        filled.copy_to(other)
    assert rows_in(other) == {"person_keys": 1, "participants": 1}
    with pytest.raises(InputError, match="cannot be copied to itself"):
        filled.copy_to(filled)


def test_what_differs_at_the_target_is_put_right(filled: Store, other: Store) -> None:
    filled.copy_to(other)
    with other.writing() as session:
        session.execute(update(TallyRow).values(ties=TallyRow.ties + 1))
        session.execute(update(ParticipantRow).values(flag="changed"))
        session.execute(delete(FaultRow))
    copies = {copy.table: copy.written for copy in filled.copy_to(other)}
    assert copies["faults"] == 1
    assert copies["participants"] == 2
    assert other.verify() == []


def test_the_command_tells_what_it_did_and_takes_media_along(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(tmp_path) as store:
        ids = add_comparison(store)
        cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
        here = ["--database-url", str(store.url), "--data-dir", str(tmp_path / "data")]
        there = ["--database-url", postgres_url, "--data-dir", str(tmp_path / "new")]
        assert main(["copy-to", postgres_url, *here, "--to-data-dir", str(tmp_path / "new")]) == 0
        assert main(["verify", *there]) == 0
        assert main(["copy-to", "mysql://somewhere", *here]) == 2
    shown = capsys.readouterr().out
    assert "votes: 1 rows, 1 written, sha256" in shown
    assert "are sound" in shown


def test_what_belongs_to_the_data_travels_and_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup, and a copy with a data folder of its own, opened where the original is gone."""
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    with open_store(here) as store:
        ids = add_comparison(store)
        cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
        store.register_adapter(adapter_record(here / "data" / "adapters" / "emoji" / "a.safetensors", "trained"))
        (here / "data" / "participant_secret").write_text("secret")
        store.backup(tmp_path / "safe")
    source = ["--database-url", f"sqlite:///{here / 'npo.db'}", "--data-dir", str(here / "data")]
    assert main(["copy-to", f"sqlite:///{tmp_path / 'copy.db'}", *source, "--to-data-dir", str(tmp_path / "copy")]) == 0
    shutil.rmtree(here)
    for database, data in (("safe/npo.db", "safe"), ("copy.db", "copy")):
        where = ["--database-url", f"sqlite:///{tmp_path / database}", "--data-dir", str(tmp_path / data)]
        assert main(["verify", *where]) == 0
        with Store(f"sqlite:///{tmp_path / database}", tmp_path / data) as copy:
            (adapter,) = copy.promoted("emoji", "negative")
        assert Path(adapter.path).read_bytes() == b"weights of trained"
        assert (tmp_path / data / "participant_secret").read_text() == "secret"
        assert (tmp_path / data / "participant_secret").stat().st_mode & 0o777 == 0o600
        capsys.readouterr()
        Path(adapter.path).write_bytes(b"scribbled over")
        assert main(["verify", *where]) == 1
        assert "is not what was registered" in capsys.readouterr().out
        Path(adapter.path).unlink()
        assert main(["verify", *where]) == 1
        assert "the adapter trained" in capsys.readouterr().out


def test_what_is_missing_here_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_store(tmp_path) as store:
        ids = add_comparison(store)
        gone = store.media_path(store.get_generation(ids["base"]))
        gone.unlink()
        lost = store.register_adapter(AdapterRecord("emoji", "negative", "lost", "nowhere.safetensors", "1" * 64))
    here = ["--database-url", f"sqlite:///{tmp_path / 'npo.db'}", "--data-dir", str(tmp_path / "data")]
    copy = ["copy-to", f"sqlite:///{tmp_path / 'copy.db'}", "--to-data-dir", str(tmp_path / "copy")]
    for command in (["backup", str(tmp_path / "safe")], copy):
        assert main([*command, *here]) == 1
        told = capsys.readouterr().err
        assert f"The media file {gone} is missing." in told
        assert f"The file of the adapter lost ({lost.id}), nowhere.safetensors, is missing." in told


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path: Path) -> None:
    """A limit on the size of files stands for it, as in tests/train/engine/test_full_disk.py."""
    with open_store(tmp_path) as store, Store(f"sqlite:///{tmp_path / 'copy.db'}", tmp_path / "copy") as copy:
        big = b"x" * 50_000
        add_comparison(store, media=big, media_sha256=hashlib.sha256(big).hexdigest())
        for command in (lambda: store.backup(tmp_path / "safe" / "today"), lambda: store.copy_to(copy)):
            with room_for(20_000), pytest.raises(InputError, match=r"cannot be (written|used)"):
                command()
        assert not (tmp_path / "safe").exists()
        assert not list((tmp_path / "copy").rglob("*"))
        assert rows_in(copy) == {"person_keys": 1}
        with copy.reading() as session:
            pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()
        full = event.listens_for(copy._engine, "connect")
        copy._engine.dispose()
        full(lambda connection, _: connection.execute(f"PRAGMA max_page_count = {pages}"))
        for number in range(30):
            add_comparison(store, f"c{number}")
        with pytest.raises(InputError, match=r"The database .*copy\.db cannot be used \(database or disk is full\)"):
            store.copy_to(copy)
        assert rows_in(copy) == {"person_keys": 1}
        assert not list((tmp_path / "copy").rglob("*"))
        assert store.verify() == []


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within it no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
