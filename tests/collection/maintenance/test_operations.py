"""Erasure, backup and verification."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from collection.errors import InputError
from collection.store import Store
from collection.types import TALLY_DIMENSIONS
from tests.collection.helpers import add_comparison, cast, open_store
from tests.programs.postgres import drop_database, new_database


def test_erasing_a_person_deletes_all_that_is_theirs_and_nothing_else(store: Store) -> None:
    person, other = store.create_participant(), store.create_participant()
    own, theirs = add_comparison(store, "own"), add_comparison(store, "theirs")
    cast(store, person, own["base"], own["aligned"], "left")
    cast(store, other, theirs["base"], theirs["aligned"], "left")
    cast(store, person, theirs["base"], theirs["aligned"], "right", study="pool")
    report = store.erase_participant(person)
    assert (report.votes, report.ballots, report.generations, report.generations_kept) == (2, 2, 3, 0)
    assert not store.has_participant(person)
    assert store.comparison("own") == []
    assert len(store.comparison("theirs")) == 3
    assert len(list(store.media)) == 3
    assert store.totals().votes == 1
    assert store.verify() == []


def test_pictures_that_others_were_asked_about_stay(store: Store) -> None:
    person, other = store.create_participant(), store.create_participant()
    own = add_comparison(store, "own")
    cast(store, person, own["base"], own["aligned"], "left")
    view = store.next_ballot(other, random.Random(0))
    assert view is not None
    store.vote(view.ballot_id, other, "left")
    report = store.erase_participant(person)
    assert (report.votes, report.generations, report.generations_kept) == (1, 0, 3)
    assert store.totals().votes == 1
    assert store.verify() == []


def test_a_media_file_that_another_generation_shares_stays(store: Store) -> None:
    person = store.create_participant()
    own = add_comparison(store, "own")
    shared = store.get_generation(own["base"])
    content = store.media_path(shared).read_bytes()
    add_comparison(store, "other", media=content, media_sha256=shared.media_sha256)
    cast(store, person, own["base"], own["aligned"], "left")
    store.erase_participant(person)
    assert [path.name for path in store.media] == [f"{shared.media_sha256}.png"]
    assert store.verify() == []


def test_an_erased_prompt_is_not_left_in_the_files(tmp_path: Path) -> None:
    secret = "my name is Rumpelstiltskin"
    with open_store(tmp_path) as store:
        person, own = store.create_participant(), add_comparison(store, prompt=secret)
        cast(store, person, own["base"], own["aligned"], "left")
        store.erase_participant(person)
        for path in tmp_path.glob("npo.db*"):
            assert secret.encode() not in path.read_bytes(), path


def test_erasing_an_unknown_person_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="There is no participant"):
        store.erase_participant("nobody")


def restored(backup: Path, request: pytest.FixtureRequest) -> Store:
    """What the README says of a restored backup: a file is opened where it lies, a dump goes into a new database."""
    if backup.suffix == ".db":
        return Store(f"sqlite:///{backup}", backup.parent)
    url = new_database(request.getfixturevalue("postgres_server"))
    request.addfinalizer(lambda: drop_database(url))
    subprocess.run(["pg_restore", "--no-owner", "--dbname", url, str(backup)], check=True)
    return Store(url, backup.parent)


def test_a_backup_opens_as_a_database_with_everything(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ids, person = add_comparison(store), store.create_participant()
    cast(store, person, ids["base"], ids["aligned"], "left")
    target = store.backup(tmp_path / "backup")
    cast(store, person, ids["base"], ids["aligned_npo"], "left")
    assert [path.name for path in sorted(target.parent.iterdir())] == ["media", target.name]
    with restored(target, request) as copy:
        assert copy.totals().votes == 1
        assert copy.verify() == []
        cast(copy, copy.create_participant(), ids["base"], ids["aligned"], "left")
    again = store.backup(tmp_path / "another")
    with restored(again, request) as copy:
        assert copy.totals().votes == 2
    assert store.backup(tmp_path / "another") == again


def test_a_backup_made_while_people_vote_is_one_sound_moment(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ids, stop = add_comparison(store), threading.Event()

    def vote_on() -> int:
        count = 0
        while not stop.is_set():
            cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        voters = [pool.submit(vote_on) for _ in range(3)]
        while store.totals().votes < 20:
            time.sleep(0.01)
        before, target, after = store.totals().votes, store.backup(tmp_path / "backup"), store.totals().votes
        stop.set()
        said = sum(voter.result() for voter in voters)
    assert store.totals().votes == said
    with restored(target, request) as copy:
        assert before <= copy.totals().votes <= after
        assert copy.verify() == []


def test_a_backup_never_replaces_the_database_itself(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, pytest.raises(InputError, match="would replace the database itself"):
        store.backup(tmp_path)


def test_a_backup_that_cannot_be_written_or_made_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        store.backup(tmp_path / "file" / "below")
    monkeypatch.setenv("PATH", str(tmp_path))
    if store.url.get_backend_name() == "postgresql":
        with pytest.raises(InputError, match="pg_dump is not installed"):
            store.backup(tmp_path / "backup")


def test_verify_finds_what_is_missing_damaged_or_unknown(store: Store) -> None:
    ids, person = add_comparison(store), store.create_participant()
    cast(store, person, ids["base"], ids["aligned"], "left")
    paths = {variant: store.media_path(store.get_generation(identity)) for variant, identity in ids.items()}
    paths["base"].unlink()
    paths["aligned"].write_bytes(b"scribbled over")
    (store.media.folder / "ff").mkdir(exist_ok=True)
    (store.media.folder / "ff" / "stranger.png").write_bytes(b"")
    with store.writing() as session:
        session.execute(text("UPDATE votes SET left_variant = 'aligned_npo'"))
        session.execute(text("UPDATE generations SET latents_shape = '8x4x5' WHERE variant = 'aligned_npo'"))
    problems = "\n".join(store.verify())
    assert len(store.verify()) == 5 + 2 * len(TALLY_DIMENSIONS)
    for part in (
        "The count table has",
        "is missing",
        "is damaged",
        "No generation knows",
        "something else than its ballot",
        "8x4x5",
    ):
        assert part in problems


def test_verify_finds_a_row_that_refers_to_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        ids, person = add_comparison(store), store.create_participant()
        cast(store, person, ids["base"], ids["aligned"], "left")
    with sqlite3.connect(tmp_path / "npo.db") as careless:  # foreign keys are off unless one asks for them
        careless.execute("DELETE FROM participants")
    careless.close()
    with open_store(tmp_path) as store:
        assert any("refers to a row that is not there" in problem for problem in store.verify())
