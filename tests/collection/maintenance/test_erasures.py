"""Who was erased stays erased, whatever is brought back."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest

from collection.database.people import user_number
from collection.errors import InputError
from collection.formats.exporters import EXPORTERS, IMPORTERS
from collection.store import Store
from tests.collection.helpers import add_comparison, cast, open_store

FORMATS = ("jsonl", "pickapic", "fastchat")
PRIVATE, SHARED = "what only they asked for", "what others judged too"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def two_people(store: Store) -> tuple[str, str]:
    """(who is to be erased, another person): a comparison that the first one asked for alone, one that both judged."""
    leaving, staying = store.create_participant(), store.create_participant()
    alone, both = add_comparison(store, "c1", prompt=PRIVATE), add_comparison(store, "c2", prompt=SHARED)
    cast(store, leaving, alone["base"], alone["aligned"], "left")
    cast(store, leaving, both["base"], both["aligned"], "left")
    cast(store, staying, both["base"], both["aligned"], "right")
    return leaving, staying


def export(store: Store, format: str, path: Path) -> Path:
    EXPORTERS[format](store.exported_votes(), store.media, path)
    return path


def check_gone(store: Store, others: int) -> None:
    """Only the votes of other people are here, and nothing of what the erased person alone asked for."""
    assert store.totals().votes == others
    assert PRIVATE not in {vote.left.prompt for vote in store.exported_votes()}
    assert store.verify() == []


@pytest.mark.parametrize("format", FORMATS)
def test_no_import_brings_an_erased_person_back(format: str, store: Store, tmp_path: Path) -> None:
    leaving, _ = two_people(store)
    exported = export(store, format, tmp_path / "out")
    store.erase_participant(leaving)
    for _ in range(2):
        report = store.import_votes(partial(IMPORTERS[format], exported))
        assert (report.votes, report.generations, report.erased) == (0, 0, 2)
        assert "left out 2 votes of people who were erased" in str(report)
        check_gone(store, 1)
    names = store.erased_people()
    with open_store(tmp_path / "new") as new:
        assert new.honour_erasures(names) == 0
        report = new.import_votes(partial(IMPORTERS[format], exported))
        assert (report.votes, report.erased) == (1, 2)
        check_gone(new, 1)


def test_files_from_before_people_had_names_are_seen_through(store: Store, tmp_path: Path) -> None:
    leaving, _ = two_people(store)
    name = store.outside_name(leaving)
    lines = export(store, "jsonl", tmp_path / "votes.jsonl").read_text().replace(name, leaving)
    assert leaving in lines
    (tmp_path / "votes.jsonl").write_text(lines)
    rows = [json.loads(line) for line in export(store, "fastchat", tmp_path / "log.jsonl").read_text().splitlines()]
    kept = [{key: row[key] for key in row if key not in ("vote_id", "ballot_id", "family")} for row in rows]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(row).replace(name, leaving) for row in kept))
    store.erase_participant(leaving)
    assert f"pickapic-{user_number(leaving)}" in store.erased_people()
    for format, file in (("jsonl", "votes.jsonl"), ("fastchat", "log.jsonl")):
        report = store.import_votes(partial(IMPORTERS[format], tmp_path / file))
        assert (report.votes, report.erased) == (0, 2)
        check_gone(store, 1)


def test_an_older_backup_that_is_put_back_is_without_them(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        leaving, staying = two_people(store)
        backup = store.backup(tmp_path / "safe")
        store.erase_participant(leaving)
    shutil.copy(backup, tmp_path / "npo.db")
    with open_store(tmp_path) as store:
        assert not store.has_participant(leaving)
        assert store.has_participant(staying)
        check_gone(store, 1)
        assert store.was_erased(leaving)


def test_a_copy_does_not_bring_an_erased_person_back(store: Store, tmp_path: Path) -> None:
    leaving, _ = two_people(store)
    with open_store(tmp_path / "copy") as copy:
        store.copy_to(copy)
        copy.erase_participant(leaving)
        name = store.outside_name(leaving)
        with pytest.raises(InputError, match=f"1 people were erased who are still here.*participants erase {name}"):
            store.copy_to(copy)
        check_gone(copy, 1)
        store.erase_participant(store.participant_of_code(name))
        store.copy_to(copy)
        check_gone(copy, 1)


def test_a_person_is_known_by_the_name_that_files_have(store: Store) -> None:
    leaving, staying = two_people(store)
    name = store.outside_name(leaving)
    assert store.participant_of_code(name) == leaving
    assert not store.has_participant(name), "whoever has the file knows it"
    assert store.people_among([name]) == [leaving]
    store.erase_participant(leaving)
    assert store.was_erased(leaving)
    assert store.was_erased(name)
    assert not store.was_erased(staying)


def test_exports_have_no_id_in_them(store: Store, tmp_path: Path) -> None:
    people = two_people(store)
    for format in EXPORTERS:
        path = export(store, format, tmp_path / format)
        for file in [each for each in (path, *path.rglob("*")) if each.is_file()]:
            assert not [person for person in people if person.encode() in file.read_bytes()]


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "erased.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"erased\.txt cannot be read"):
        open_store(tmp_path)
