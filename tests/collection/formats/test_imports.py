"""What other people's files hold, and what a person does next: statistics, an export, the same import again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collection.__main__ import main
from collection.store import Store
from collection.types import VoteCount
from tests.collection.foreign import arena_line, battle, pair, write_lines, write_pairs


class Commands:
    """`python -m collection` on one database."""

    def __init__(self, url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.where = ["--database-url", url, "--data-dir", str(folder / "data")]
        self.url, self.folder, self._capsys = url, folder, capsys

    def __call__(self, *arguments: str | Path) -> str:
        """What the command printed; it has to succeed."""
        status = main([*map(str, arguments), *self.where])
        told = self._capsys.readouterr()
        assert status == 0, told.err
        return told.out

    def counts(self) -> list[tuple[Any, ...]]:
        """The outcomes of all votes."""
        with Store(self.url, self.folder / "data", create=False) as store:
            return [tuple(count) for count in store.vote_counts(blind_only=False)]


@pytest.fixture
def collection(database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(database_url, tmp_path, capsys)


@pytest.fixture
def elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Commands]:
    """Another database, by a name."""
    return lambda name: Commands(f"sqlite:///{tmp_path / name}.db", tmp_path / name, capsys)


FILES: dict[str, tuple[str, Callable[[Path], Path], list[tuple[Any, ...]]]] = {
    "pick-a-pic": (
        "pickapic",
        lambda folder: write_pairs(folder / "rows.parquet", [pair(0), pair(1, label_0=0.0, label_1=1.0)]),
        [("alpha-lab/paint", "beta-lab/draw", 1, 1, 0, 0)],
    ),
    "arena's log": (
        "fastchat",
        lambda folder: write_lines(
            folder / "log.jsonl", [arena_line(0), arena_line(1, "tievote"), arena_line(2, "bothbad_vote")]
        ),
        [("blue-model", "red-model", 0, 1, 1, 1)],
    ),
    "cleaned battles": (
        "fastchat",
        lambda folder: write_lines(folder / "clean.jsonl", [battle(0), battle(1, "tie"), battle(2, "tie (bothbad)")]),
        [("blue", "red", 0, 1, 1, 1)],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_after_an_import_come_statistics_an_export_and_the_same_import_again(
    name: str, collection: Commands, elsewhere: Callable[[str], Commands], tmp_path: Path
) -> None:
    format, write, counts = FILES[name]
    file = write(tmp_path)
    votes = sum(sum(count[2:]) for count in counts)
    assert f"Imported {votes} votes" in collection("import", file, "--format", format)
    assert collection.counts() == counts
    told = json.loads(collection("stats", "--json"))
    assert told["totals"]["votes"] == votes
    by_prompt = [VoteCount(**count) for counts in told["by_prompt"].values() for count in counts]
    assert sum(count.total for count in by_prompt) == votes
    collection("verify")
    assert "Imported 0 votes" in collection("import", file, "--format", format)
    for other in ("jsonl",):
        exported = tmp_path / f"{other}.out"
        assert f"Wrote {votes} votes" in collection("export", "--format", other, "--out", exported)
        assert "Imported 0 votes" in collection("import", exported, "--format", other)
        copy = elsewhere(other)
        assert f"Imported {votes} votes" in copy("import", exported, "--format", other)
        assert copy.counts() == counts
        assert json.loads(copy("stats", "--json"))["totals"]["votes"] == votes
        copy("verify")
    assert collection.counts() == counts
