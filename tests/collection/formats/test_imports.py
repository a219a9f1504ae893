"""What other people's files hold, and what a person does next: statistics, an export, the same import again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from collection.__main__ import main
from collection.store import Store
from tests.collection.foreign import arena_line, battle, pair, write_lines, write_pairs
from tests.collection.helpers import add_comparison, cast


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

    def store(self) -> Store:
        """The database, open."""
        return Store(self.url, self.folder / "data")

    def prompts(self) -> set[str]:
        """What was asked for."""
        with self.store() as store:
            return {vote.left.prompt for vote in store.exported_votes()}

    def counts(self) -> list[tuple[Any, ...]]:
        """The outcomes of all votes."""
        with self.store() as store:
            return [tuple(count) for count in store.vote_counts(blind_only=False)]


@pytest.fixture
def collection(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(f"sqlite:///{tmp_path / 'npo.db'}", tmp_path, capsys)


@pytest.fixture
def elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Commands]:
    """Another database, by a name."""
    return lambda name: Commands(f"sqlite:///{tmp_path / name}.db", tmp_path / name, capsys)


def lmarena(number: int, winner: str, **time: Any) -> dict[str, Any]:
    """A vote as LMArena publishes them now."""
    conversations = {
        f"conversation_{side}": [
            {"role": "user", "content": [{"type": "text", "text": "draw a fox"}]},
            {"role": "assistant", "content": [{"type": "text", "text": f"{side}{number}"}]},
        ]
        for side in "ab"
    }
    line = {"id": f"n{number}", "model_a": "red", "model_b": "blue", "winner": winner, **conversations}
    return line | {"evaluation_session_id": f"s{number}"} | (time or {"timestamp": f"2026-06-15T10:00:0{number}"})


def marked(path: Path) -> Path:
    """The same text behind a byte-order mark."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return path


GENAI = [
    {
        "conv_id": f"g{side}",
        "model_name": f"imagehub_{side}_generation",
        "online_load": False,
        "prompt": "a fox in snow",
    }
    for side in ("Alpha", "Beta")
]
HEADINGS = (
    ["### Model A: red-model", "### Model B: blue-model"],
    ["<h3>Model A: red-model</h3>\n", "<h3>Model B: blue-model</h3>\n"],
    ["Model A", "Model B"],
)
APPLES = [f"a red apple {number}, 3d style" for number in range(3)]
RED_BLUE = "blue-model", "red-model"
LABS = "alpha-lab/paint", "beta-lab/draw"
# what it is -> (format, file name, content, outcomes, prompts, what is said beside how many votes)
FILES: dict[str, tuple[str, str, list[dict[str, Any]], list[tuple[Any, ...]], set[str], str]] = {
    "pick-a-pic": (
        *("pickapic", "rows.parquet", [pair(0), pair(1, label_0=0.0, label_1=1.0)]),
        *([(*LABS, 1, 1, 0, 0)], {APPLES[0], APPLES[1]}, ""),
    ),
    "rows without a label": (
        *(
            "pickapic",
            "rows.parquet",
            [pair(0), pair(1, label_0=None, label_1=None), pair(2, label_0=0.5, label_1=0.5)],
        ),
        *(
            [(*LABS, 1, 0, 1, 0)],
            {APPLES[0], APPLES[2]},
            "left out 1 (no label: entry 2)",
        ),
    ),
    "a row without a time": (
        *("pickapic", "rows.parquet", [pair(0), pair(1, created_at=None)]),
        *([(*LABS, 1, 0, 0, 0)], {APPLES[0]}, "left out 1 (no time: entry 2)"),
    ),
    "times as text": (
        *("pickapic", "rows.parquet", [pair(0, created_at="2026-03-04 05:06:07.123456")]),
        *([(*LABS, 1, 0, 0, 0)], {APPLES[0]}, ""),
    ),
    "models of one lab among others": (
        *("pickapic", "rows.parquet", [pair(0, model_1="alpha-lab/paint-xl"), pair(1)]),
        [("alpha-lab/paint", "alpha-lab/paint-xl", 1, 0, 0, 0), (*LABS, 1, 0, 0, 0)],
        *({APPLES[0], APPLES[1]}, ""),
    ),
    "an arena's log": (
        *("fastchat", "log.jsonl", [arena_line(0), arena_line(1, "tievote"), arena_line(2, "bothbad_vote")]),
        *([(*RED_BLUE, 0, 1, 1, 1)], {"a small teapot"}, ""),
    ),
    "a log that is called .json": (
        *("fastchat", "2026-03-04-conv.json", [arena_line(0), {"type": "chat", "tstamp": 1.0}, arena_line(1)]),
        *([(*RED_BLUE, 0, 2, 0, 0)], {"a small teapot"}, "left out 1 (no vote but 'chat': entry 2)"),
    ),
    "ends of lines in prompts": (
        *(
            "fastchat",
            "log.jsonl",
            [arena_line(0, prompt="a teapot\u2028blue sky"), arena_line(1, prompt="next\x85line")],
        ),
        *([(*RED_BLUE, 0, 2, 0, 0)], {"a teapot\u2028blue sky", "next\x85line"}, ""),
    ),
    "models without names": (
        "fastchat",
        "log.jsonl",
        [arena_line(0), arena_line(1, models=[None, None]), arena_line(2, models=["", "blue-model"])],
        *(
            [(*RED_BLUE, 0, 1, 0, 0)],
            {"a small teapot"},
            "no names of models: entry 2; one name hidden and one shown: entry 3",
        ),
    ),
    "names in headings": (
        *("fastchat", "log.jsonl", [arena_line(place, models=names) for place, names in enumerate(HEADINGS)]),
        *([(*RED_BLUE, 0, 3, 0, 0)], {"a small teapot"}, ""),
    ),
    "a prompt beside the messages": (
        *("fastchat", "log.jsonl", [arena_line(0, states=GENAI)]),
        *([("imagehub_Alpha_generation", "imagehub_Beta_generation", 1, 0, 0, 0)], {"a fox in snow"}, ""),
    ),
    "cleaned battles": (
        *("fastchat", "clean.jsonl", [battle(0), battle(1, "tie"), battle(2, "tie (bothbad)")]),
        *([("blue", "red", 0, 1, 1, 1)], {""}, ""),
    ),
    "models of two labs with one name": (
        *("fastchat", "clean.jsonl", [battle(0, model_a="alpha-lab/turbo", model_b="beta-lab/turbo")]),
        *([("alpha-lab/turbo", "beta-lab/turbo", 1, 0, 0, 0)], {""}, ""),
    ),
    "LMArena's data set": (
        *("fastchat", "arena.jsonl", [lmarena(0, "model_a"), lmarena(1, "both_bad"), lmarena(2, "tie", tstamp=1.75e9)]),
        *([("blue", "red", 0, 1, 1, 1)], {"draw a fox"}, ""),
    ),
    "zero characters": (
        *("fastchat", "log.jsonl", [arena_line(0, prompt="a small\0 teapot")]),
        *([(*RED_BLUE, 0, 1, 0, 0)], {"a small teapot"}, "2 texts are kept without their NUL"),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_after_an_import_come_statistics_an_export_and_the_same_import_again(
    name: str, collection: Commands, elsewhere: Callable[[str], Commands], tmp_path: Path
) -> None:
    format, file_name, content, counts, prompts, said = FILES[name]
    write = write_pairs if format == "pickapic" else write_lines
    file = write(tmp_path / file_name, content)
    votes = sum(sum(count[2:]) for count in counts)
    told = collection("import", file)
    assert f"Imported {votes} votes" in told
    assert said in told
    assert collection.counts() == counts
    check_statistics(collection, votes)
    assert f"Imported 0 votes, 0 ballots and 0 generations; {votes} votes were here" in collection("import", file)
    for other in ("jsonl", format):
        exported = tmp_path / f"{other}.out"
        assert f"Wrote {votes} votes" in collection("export", "--format", other, "--out", exported)
        assert "Imported 0 votes, 0 ballots and 0 generations" in collection("import", exported)
        copy = elsewhere(other)
        assert f"Imported {votes} votes" in copy("import", exported)
        assert copy.counts() == counts
        assert copy.prompts() == prompts
        check_statistics(copy, votes)
        assert "Imported 0 votes" in copy("import", file), "the same votes by another way"
    assert collection.counts() == counts


def check_statistics(collection: Commands, votes: int) -> None:
    told = json.loads(collection("stats", "--json"))
    assert told["totals"]["votes"] == votes
    collection("verify")


def test_a_log_that_grew_brings_only_what_is_new(collection: Commands, tmp_path: Path) -> None:
    lines = [arena_line(number) for number in range(3)]
    monday, tuesday = write_lines(tmp_path / "monday", lines[:2]), write_lines(tmp_path / "tuesday", lines)
    assert "Imported 2 votes" in collection("import", monday)
    assert "Imported 1 votes, 1 ballots and 2 generations; 2 votes were here already" in collection("import", tuesday)
    assert "Imported 0 votes" in collection("import", tuesday)
    assert collection.counts() == [(*RED_BLUE, 0, 3, 0, 0)]
    with collection.store() as store:
        assert store.totals().participants == 1, "one address is one person, whichever file it stands in"


def test_pairs_that_grew_bring_only_what_is_new(
    collection: Commands, elsewhere: Callable[[str], Commands], tmp_path: Path
) -> None:
    """Exported twice from a database in which somebody voted again on the same pictures meanwhile."""
    with collection.store() as store:
        ids = add_comparison(store)
        cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
    copy = elsewhere("copy")
    for votes, told in (
        (1, "Imported 1 votes"),
        (2, "Imported 1 votes, 1 ballots and 0 generations; 1 votes were here"),
    ):
        collection("export", "--format", "pickapic", "--out", tmp_path / "pairs")
        assert told in copy("import", tmp_path / "pairs")
        assert copy.counts() == [("aligned", "base", 0, votes, 0, 0)]
        assert "Imported 0 votes" in collection("import", tmp_path / "pairs")
        if votes == 1:
            with collection.store() as store:
                cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
    collection("export", "--out", tmp_path / "votes.jsonl")
    assert "2 votes were here already" in copy("import", tmp_path / "votes.jsonl"), "by another format, with our ids"


def test_an_import_that_breaks_off_leaves_nothing_not_even_files(
    collection: Commands, elsewhere: Callable[[str], Commands], tmp_path: Path
) -> None:
    collection("import", write_pairs(tmp_path / "rows.parquet", [pair(0), pair(1)]))
    collection("export", "--out", tmp_path / "votes.jsonl")
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes((tmp_path / "votes.jsonl").read_bytes()[:-20])
    copy = elsewhere("copy")
    assert main(["import", str(cut), *copy.where]) == 2
    with copy.store() as store:
        assert store.totals().votes == 0
        assert list(store.media.names()) == []
        assert store.verify() == []
    assert "Imported 2 votes" in copy("import", tmp_path / "votes.jsonl")


def test_a_mark_before_the_text_is_no_part_of_it(collection: Commands, tmp_path: Path) -> None:
    assert "Imported 1 votes" in collection("import", marked(write_lines(tmp_path / "log.jsonl", [arena_line(0)])))


def test_postgresql_takes_what_sqlite_takes(
    postgres_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Commands(postgres_url, tmp_path, capsys)
    long = "lab/" + "x" * 200
    lines = [arena_line(0, prompt="a small\0 teapot"), battle(1, model_a=f"{long}1", model_b=f"{long}2")]
    file = write_lines(tmp_path / "log.jsonl", lines)
    assert "Imported 2 votes" in server("import", file)
    assert "Imported 0 votes" in server("import", file)
    check_statistics(server, 2)
    assert len(server.counts()) == 2, "names that differ only behind their 64th character are two"


def test_reversed_pairs_are_not_taken_for_votes(collection: Commands, tmp_path: Path) -> None:
    collection("import", write_pairs(tmp_path / "rows.parquet", [pair(0)]))
    collection("export", "--format", "npo", "--out", tmp_path / "reversed.parquet")
    with pytest.raises(AssertionError, match="holds reversed pairs"):
        collection("import", tmp_path / "reversed.parquet")


def test_nobody_is_asked_about_pictures_whose_noise_is_not_known(
    collection: Commands, elsewhere: Callable[[str], Commands], tmp_path: Path
) -> None:
    """Imported pictures of one prompt may have begun with different noise."""
    with collection.store() as store:
        ids = add_comparison(store)
        cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
        assert store.next_ballot(store.create_participant(), Random(0)) is not None
    collection("export", "--format", "pickapic", "--out", tmp_path / "pairs")
    copy = elsewhere("copy")
    copy("import", tmp_path / "pairs")
    with copy.store() as store:
        assert store.next_ballot(store.create_participant(), Random(0)) is None


def test_a_database_on_a_network_mount_takes_files_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has one connection, on which the importer asks what is known while it writes."""
    mounted = Commands(f"sqlite:///{tmp_path / 'npo.db'}?mount=network", tmp_path, capsys)
    file = write_lines(tmp_path / "log.jsonl", [arena_line(0)])
    assert "Imported 1 votes" in mounted("import", file)
    assert "Imported 0 votes" in mounted("import", file)
