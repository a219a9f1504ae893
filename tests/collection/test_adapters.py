"""Which adapter is in use, taking that back, and where an adapter comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from collection.__main__ import main
from collection.errors import InputError
from collection.store import Store
from collection.types import AdapterRecord, TrainingRun
from tests.collection.helpers import add_comparison, cast, open_store


def register(store: Store, name: str, promote: bool = True, **changes: str) -> AdapterRecord:
    fields = {"family": "emoji", "role": "negative", "name": name, "path": f"{name}.safetensors", "sha256": "1" * 64}
    return store.register_adapter(AdapterRecord(**fields | changes), promote)  # type: ignore[arg-type]


def names(store: Store) -> list[str]:
    return [adapter.name for adapter in store.promoted("emoji", "negative")]


def test_what_is_registered_is_in_use_unless_told_not_to(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        assert names(store) == []
        register(store, "first")
        register(store, "second", promote=False)
        register(store, "clips", modality="video")
        register(store, "other", role="aligned")
        assert names(store) == ["first"]


def test_rolling_back_goes_one_promotion_back_each_time(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        first, second = register(store, "first"), register(store, "second")
        store.promote(str(first.id))
        assert names(store) == ["first", "second"]
        assert store.roll_back("emoji", "negative") == second
        assert store.roll_back("emoji", "negative") == first
        assert store.roll_back("emoji", "negative") is None
        with pytest.raises(InputError, match="nothing can be rolled back"):
            store.roll_back("emoji", "negative")
        assert len(store.adapters()) == 2


def test_an_unknown_adapter_cannot_be_put_to_use(tmp_path: Path) -> None:
    with open_store(tmp_path) as store, pytest.raises(InputError, match="There is no adapter 'gone'"):
        store.promote("gone")


def test_lineage_names_the_votes_and_the_adapters_behind_their_pictures(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        person, ids = store.create_participant(), add_comparison(store, negative_id="parent")
        cast(store, person, ids["aligned"], ids["aligned_npo"], "left")
        (pair,) = store.preference_pairs("emoji").pairs
        run_id = store.start_training_run(TrainingRun("emoji", "negative", {"loss": "sigmoid"}, (pair.vote_id,)))
        child = register(store, "child", training_run_id=run_id)
        lineage = store.lineage(str(child.id))
        orphan = store.lineage(str(register(store, "orphan").id))
    assert lineage.run is not None
    assert lineage.run.vote_ids == (pair.vote_id,)
    assert lineage.parents == ("emoji-aligned", "parent")
    assert (orphan.run, orphan.parents) == (None, ())


def test_the_command_line_promotes_rolls_back_and_tells_the_lineage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(tmp_path) as store:
        first = register(store, "first")
        register(store, "second")
    where = ["--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path / "data")]

    def said(*arguments: str) -> str:
        assert main(["adapters", *arguments, *where]) == 0
        return capsys.readouterr().out

    assert "second  (in use)" in said()
    assert "In use now: first." in said("promote", str(first.id))
    assert "first  (in use)" in said("list")
    assert "In use now: second." in said("rollback", "--family", "emoji", "--role", "negative")
    assert "Nothing is known of its training." in said("lineage", str(first.id))
    assert main(["adapters", "rollback", *where]) == 2
    assert main(["adapters", "promote", *where]) == 2
    assert main(["adapters", "promote", "gone", *where]) == 2
    assert capsys.readouterr().err.count("error: ") == 3
