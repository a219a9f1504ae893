"""What is exported can be read back as it was."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from collection.errors import InputError
from collection.export import CSV_COLUMNS, EXPORTERS, PICK_A_PIC_COLUMNS, read_jsonl
from collection.records import ExportedVote
from collection.store import Store
from tests.collection.helpers import add_comparison, cast, open_store

CHOICES = ("left", "right", "tie", "both_bad", "skip")


@pytest.fixture
def voted(store: Store) -> Store:
    """A store with one vote of each choice, by two people, one of them flagged later."""
    ids, people = (
        add_comparison(store, prompt="a „red“ apple, 3d style\nsecond line"),
        [store.create_participant() for _ in "ab"],
    )
    for number, choice in enumerate(CHOICES):
        cast(store, people[number % 2], ids["base"], ids["aligned_npo"], choice, study=None)  # type: ignore[arg-type]
    return store


def rows_of_jsonl(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Reads back by importing into a database of its own."""
    with open_store(folder / "copy") as copy:
        copy.import_votes(read_jsonl(path))
        assert copy.verify() == []
        return [row_of(vote) for vote in copy.exported_votes()]


def rows_of_csv(path: Path, folder: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_of_pick_a_pic(path: Path, folder: Path) -> list[dict[str, Any]]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pick-a-pic needs pyarrow")
    return parquet.read_table(path).to_pylist()


def row_of(vote: ExportedVote) -> dict[str, Any]:
    return {
        "vote": vote.vote,
        "ballot": vote.ballot,
        "left": {**vars(vote.left), "latents": vote.left.latents.tobytes()},  # type: ignore[union-attr]
        "right": {**vars(vote.right), "latents": vote.right.latents.tobytes()},  # type: ignore[union-attr]
    }


def csv_row_of(vote: ExportedVote) -> dict[str, Any]:
    sides = {f"{side}_{name}": value for side in ("left", "right") for name, value in vars(getattr(vote, side)).items()}
    row = vars(vote.ballot) | vars(vote.left) | sides | vars(vote.vote)
    row["left_generation_id"], row["right_generation_id"] = vote.left.id, vote.right.id
    buffer = io.StringIO()
    values = {name: value.isoformat() if name.endswith("_at") else value for name, value in row.items()}
    writer = csv.DictWriter(buffer, CSV_COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerow(values)
    return next(csv.DictReader(io.StringIO(buffer.getvalue())))


def pick_a_pic_row_of(vote: ExportedVote, store: Store) -> dict[str, Any]:
    label = {"left": 1.0, "right": 0.0}.get(vote.vote.choice, 0.5)
    return {
        "best_image_uid": {1.0: vote.left.id, 0.0: vote.right.id, 0.5: "none"}[label],
        "caption": vote.left.prompt,
        "has_label": label != 0.5,
        "jpg_0": store.media_path(vote.left).read_bytes(),
        "jpg_1": store.media_path(vote.right).read_bytes(),
        "label_0": label,
        "label_1": 1.0 - label,
        "are_different": True,
        "model_0": "emoji/base",
        "model_1": "emoji/aligned_npo",
        "num_example_per_prompt": 4,
        "created_at": vote.vote.created_at.replace(tzinfo=None),
    }


READERS: dict[str, Callable[[Path, Path], list[dict[str, Any]]]] = {
    "jsonl": rows_of_jsonl,
    "csv": rows_of_csv,
    "pick-a-pic": rows_of_pick_a_pic,
}


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_export_reads_back_what_was_voted(name: str, voted: Store, tmp_path: Path) -> None:
    if name == "pick-a-pic":
        pytest.importorskip("pyarrow", reason="pick-a-pic needs pyarrow")
    path = tmp_path / "out" / "votes.file"
    written = EXPORTERS[name](voted.exported_votes(), voted.media, path)
    votes = list(voted.exported_votes())
    rows = READERS[name](path, tmp_path)
    assert len(rows) == written
    assert list(path.parent.iterdir()) == [path]
    if name == "jsonl":
        assert rows == [row_of(vote) for vote in votes]
    elif name == "csv":
        assert rows == [csv_row_of(vote) for vote in votes]
    else:
        assert set(rows[0]) == set(PICK_A_PIC_COLUMNS)
        kept = [pick_a_pic_row_of(vote, voted) for vote in votes if vote.vote.choice != "skip"]
        assert [{key: row[key] for key in kept[0]} for row in rows] == kept


def test_importing_twice_adds_nothing(voted: Store, tmp_path: Path) -> None:
    EXPORTERS["jsonl"](voted.exported_votes(), voted.media, tmp_path / "votes.jsonl")
    with open_store(tmp_path / "copy") as copy:
        first = copy.import_votes(read_jsonl(tmp_path / "votes.jsonl"))
        again = copy.import_votes(read_jsonl(tmp_path / "votes.jsonl"))
        assert (first.votes, first.ballots, first.generations) == (5, 5, 2)
        assert (again.votes, again.ballots, again.generations) == (0, 0, 0)
        assert copy.vote_counts() == voted.vote_counts()
        pairs = copy.preference_pairs("emoji").pairs
        assert [pair.vote_id for pair in pairs] == [pair.vote_id for pair in voted.preference_pairs("emoji").pairs]


def test_flags_travel_and_withdrawn_votes_do_not(voted: Store, tmp_path: Path) -> None:
    votes = list(voted.exported_votes())
    voted.flag_participant(votes[0].vote.participant_id, "a robot")
    voted.unvote([votes[1].ballot.id], votes[1].vote.participant_id)
    exported = list(voted.exported_votes())
    assert [vote.vote.flag for vote in exported] == ["a robot", "a robot", None, "a robot"]
    assert votes[1].vote.id not in {vote.vote.id for vote in exported}
    assert list(voted.exported_votes("sd15")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"choice": "left"', '"choice": "middle"'),
        ('"seed": 9223372036854775807', '"seed": "seven"'),
        ('"record": "ballot"', '"record": "ballon"'),
        ('"media": "', '"media": "AAAA'),
        ('"shape": [8, 4, 4]', '"shape": [8, 4, 5]'),
        ('"blind": true', '"blind": true, "more": 1'),
        ('+00:00"', '"'),
        ("}", ""),
    ],
)
def test_a_damaged_export_is_refused_and_nothing_is_imported(voted: Store, tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "votes.jsonl"
    EXPORTERS["jsonl"](voted.exported_votes(), voted.media, path)
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")
    with open_store(tmp_path / "copy") as copy:
        with pytest.raises(InputError):
            copy.import_votes(read_jsonl(path))
        assert copy.totals().votes == 0
        assert copy.comparison("c1") == []


def test_votes_before_their_ballots_are_refused(voted: Store, tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    EXPORTERS["jsonl"](voted.exported_votes(), voted.media, path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for order in (lines[3:4], lines[2:3]):
        path.write_text("".join(order), encoding="utf-8")
        with open_store(tmp_path / "copy") as copy, pytest.raises(InputError, match="comes before"):
            copy.import_votes(read_jsonl(path))


def test_a_file_that_cannot_be_read_or_written_gets_one_sentence(voted: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        list(read_jsonl(tmp_path / "nowhere.jsonl"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        EXPORTERS["csv"](voted.exported_votes(), voted.media, tmp_path / "file" / "votes.csv")


def test_times_keep_their_microseconds(voted: Store) -> None:
    votes = [vote.vote for vote in voted.exported_votes()]
    assert all(vote.created_at.utcoffset() == timedelta(0) for vote in votes)
    assert votes == sorted(votes, key=lambda vote: vote.created_at)
