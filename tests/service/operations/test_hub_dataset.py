from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collection.__main__ import main
from collection.database.people import SECRET_VARIABLE
from collection.store import Store
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from service.arena.picks import Pick
from service.errors import InputError
from service.operations.hub_dataset import VoteBackup, keep_votes, restore
from service.services import Services
from tests.hub_server import LocalHub, local_hub, offline
from tests.service.helpers import REQUEST, make_services

DATASET = "someone/votes"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "hub", tmp_path / "cache") as running:
        yield running


@pytest.fixture
def services(tmp_path: Path, family: ModelFamily, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv(SECRET_VARIABLE, "of this Space")
    return make_services(tmp_path / "first", family, generator)


def vote(services: Services) -> tuple[str, str]:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    services.compare.vote(view.comparison_id, who, Pick("A", "B"))
    return view.comparison_id, who


def push(backup: VoteBackup) -> None:
    backup.trigger().result()


def fresh_store(tmp_path: Path, name: str) -> Store:
    """What a restart without a disk begins with."""
    return Store(f"sqlite:///{tmp_path / name}.db", tmp_path / name)


def files(hub: LocalHub) -> list[Path]:
    return sorted(hub.folder("datasets", DATASET).rglob("*.jsonl"))


def test_votes_survive_a_restart_without_a_disk(hub: LocalHub, services: Services, tmp_path: Path) -> None:
    comparison_id, who = vote(services)
    backup = keep_votes(services.store, DATASET, tmp_path / "mirror", every_minutes=60)
    push(backup)
    assert [file.parent.name for file in files(hub)] == ["votes"]
    assert who.encode() not in files(hub)[0].read_bytes(), "an id is what its person votes with"
    assert not [path for path in hub.root.rglob("*") if path.suffix in (".db", ".sqlite")]
    assert hub.squashed
    again = fresh_store(tmp_path, "second")
    second = keep_votes(again, DATASET, tmp_path / "second mirror", every_minutes=60)
    assert again.vote_counts("tiny") == services.store.vote_counts("tiny")
    assert again.has_participant(who)
    assert not again.has_participant("person-" + "0" * 32)
    for before, after in zip(services.store.comparison(comparison_id), again.comparison(comparison_id), strict=True):
        assert (after.media_sha256, after.prompt, after.seed) == (before.media_sha256, before.prompt, before.seed)
        assert again.media_path(after).read_bytes() == services.store.media_path(before).read_bytes()
    assert restore(again, DATASET, tmp_path / "second mirror") == 0, "rows that are here are left as they are"
    backup.stop()
    second.stop()


def test_nothing_is_committed_when_nothing_changed_and_an_undone_vote_is_gone(
    hub: LocalHub, services: Services, tmp_path: Path
) -> None:
    comparison_id, who = vote(services)
    backup = keep_votes(services.store, DATASET, tmp_path / "mirror", every_minutes=60)
    push(backup)

    def commits() -> int:
        return sum("/commit/" in path for path in hub.requests)

    before = commits()
    push(backup)
    assert commits() == before
    services.compare.undo(comparison_id, who)
    push(backup)
    assert commits() == before + 1
    assert restore(fresh_store(tmp_path, "third"), DATASET, tmp_path / "third mirror") == 0
    backup.stop()


def test_a_hub_that_is_down_is_told_at_the_start_and_outlived_later(
    hub: LocalHub, services: Services, tmp_path: Path
) -> None:
    vote(services)
    hub.down = True
    with pytest.raises(InputError, match=r"data set 'someone/votes' cannot be used .*HF_TOKEN may write"):
        keep_votes(services.store, DATASET, tmp_path / "mirror", every_minutes=60)
    with offline(), pytest.raises(InputError, match="cannot be used"):
        keep_votes(services.store, DATASET, tmp_path / "mirror", every_minutes=60)
    with pytest.raises(InputError, match="cannot be used"):
        keep_votes(services.store, "not a name", tmp_path / "mirror", every_minutes=60)
    hub.down = False
    backup = keep_votes(services.store, DATASET, tmp_path / "mirror", every_minutes=60)
    push(backup)
    vote(services)
    hub.down = True
    with pytest.raises(Exception, match="403"):
        push(backup)
    hub.down = False
    push(backup)
    assert restore(fresh_store(tmp_path, "later"), DATASET, tmp_path / "later mirror") == 6
    backup.stop()


def test_who_was_erased_is_not_brought_back_by_any_start(
    hub: LocalHub, services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The data set still holds the votes, as after an erasure while no app runs."""
    _, who = vote(services)
    backup = keep_votes(services.store, DATASET, tmp_path / "mirror", every_minutes=60)
    push(backup)
    backup.stop()
    erase = ["participants", "erase", who, "--hub-dataset", DATASET, "--database-url", str(services.store.url)]
    erase += ["--data-dir", str(services.store.data_dir)]
    hub.down = True
    assert main(erase) == 2
    told = capsys.readouterr().err
    assert "could not be told" in told
    assert f"participants erase {services.store.outside_name(who)}" in told
    assert services.store.totals().votes == 0
    hub.down = False
    assert main(erase) == 0
    assert "was erased before" in capsys.readouterr().out
    again = fresh_store(tmp_path, "second")
    assert restore(again, DATASET, tmp_path / "second mirror") == 0
    assert again.totals().votes == 0
    second = keep_votes(again, DATASET, tmp_path / "second mirror", every_minutes=60)
    push(second)
    second.stop()
    assert not any(file.stat().st_size for file in files(hub)), "the rows are gone from the data set too"
    assert restore(fresh_store(tmp_path, "third"), DATASET, tmp_path / "third mirror") == 0
