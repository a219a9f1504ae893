"""What is exported can be read back as it was."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from collection.__main__ import main
from collection.errors import InputError
from collection.formats.exporters import CSV_COLUMNS, EXPORTERS, IMPORTERS, read_jsonl
from collection.formats.pickapic import PICK_A_PIC_COLUMNS
from collection.formats.pickapic_reading import read_pickapic
from collection.store import Store
from collection.types import ExportedVote, VoteCount
from tests.collection.helpers import add_comparison, cast, generation, open_store
from tests.hub_server import local_hub

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


def rows_of_parquet(path: Path, folder: Path) -> list[dict[str, Any]]:
    files = sorted(path.glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def rows_of_fastchat(path: Path, folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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


def fastchat_row_of(vote: ExportedVote) -> dict[str, Any]:
    winner = {"left": "model_a", "right": "model_b", "tie": "tie", "both_bad": "tie (bothbad)"}[vote.vote.choice]
    return {
        "model_a": f"emoji/{vote.left.variant}",
        "model_b": f"emoji/{vote.right.variant}",
        "winner": winner,
        "judge": vote.vote.participant_id,
        "anony": True,
        "tstamp": vote.vote.created_at.timestamp(),
    }


def rows_of_folders(path: Path, folder: Path) -> list[dict[str, Any]]:
    return [
        {"file": file} for file in path.rglob("000*.png") if file.parent.name in ("preferred", "chosen", "w", "win")
    ]


READERS: dict[str, Callable[[Path, Path], list[dict[str, Any]]]] = {
    "jsonl": rows_of_jsonl,
    "csv": rows_of_csv,
    "pickapic": rows_of_parquet,
    "npo": rows_of_parquet,
    "fastchat": rows_of_fastchat,
    "lmarena": rows_of_fastchat,
    **dict.fromkeys(("simpletuner", "onetrainer", "sd-scripts", "verl-omni"), rows_of_folders),  # see test_trainers
}


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_export_reads_back_what_was_voted(name: str, voted: Store, tmp_path: Path) -> None:
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
    elif rows and "file" in rows[0]:
        assert len(rows) == 2
    elif name == "lmarena":
        assert [row["winner"] for row in rows] == ["model_a", "model_b", "tie", "both_bad"]
    elif name == "fastchat":
        kept = [fastchat_row_of(vote) for vote in votes if vote.vote.choice != "skip"]
        assert [{key: row[key] for key in kept[0]} for row in rows] == kept
        assert [row["type"] for row in rows] == ["leftvote", "rightvote", "tievote", "bothbad_vote"]
        assert "ip" not in rows[0]
    elif name == "pickapic":
        assert list(rows[0]) == list(PICK_A_PIC_COLUMNS)
        kept = [pick_a_pic_row_of(vote, voted) for vote in votes if vote.vote.choice != "skip"]
        assert [{key: row[key] for key in kept[0]} for row in rows] == kept
    else:
        decided = [vote for vote in votes if vote.vote.choice in ("left", "right")]
        assert [row["best_image_uid"] for row in rows] == [
            {"left": vote.right.id, "right": vote.left.id}[vote.vote.choice] for vote in decided
        ]
        assert [(row["label_0"], row["has_label"]) for row in rows] == [(0.0, True), (1.0, True)]


def test_pickapic_has_its_types_and_splits_by_prompt(store: Store, tmp_path: Path) -> None:
    person = store.create_participant()
    for number in range(40):
        ids = add_comparison(store, f"c{number}", prompt=f"prompt {number // 2}")
        cast(store, person, ids["base"], ids["aligned"], "left")
    assert EXPORTERS["pickapic"](store.exported_votes(), store.media, tmp_path / "out") == 40
    tables = {file.stem: pq.read_table(file) for file in (tmp_path / "out").iterdir()}
    assert set(tables) == {"train", "validation", "test"}
    for table in tables.values():
        assert {field.name: str(field.type) for field in table.schema} == {
            name: {"float64": "double"}.get(kind, kind) for name, kind in PICK_A_PIC_COLUMNS.items()
        }
        assert table["__index_level_0__"].to_pylist() == list(range(len(table)))
    prompts = {split: set(table["caption"].to_pylist()) for split, table in tables.items()}
    assert sum(map(len, prompts.values())) == len(set().union(*prompts.values())) == 20
    assert set(tables["train"]["num_example_per_prompt"].to_pylist()) == {2}
    single = tmp_path / "all.parquet"
    assert EXPORTERS["pickapic"](store.exported_votes(), store.media, single) == 40
    assert len(pq.read_table(single)) == 40


def test_what_does_not_count_is_not_exported_for_training(store: Store, tmp_path: Path) -> None:
    ids, person, robot = add_comparison(store), store.create_participant(), store.create_participant()
    for options in ({"kind": "check"}, {"kind": "repeat"}, {"blind": False}):
        cast(store, person, ids["base"], ids["aligned"], "left", **options)
    cast(store, robot, ids["base"], ids["aligned"], "left")
    store.flag_participant(robot, "a robot")
    for name in ("pickapic", "npo"):
        assert EXPORTERS[name](store.exported_votes(), store.media, tmp_path / name) == 0


def test_a_clip_is_told_by_frames_of_both_sides_at_the_same_moments(store: Store, tmp_path: Path) -> None:
    from PIL import Image

    from npo_core.media.files import mp4_bytes

    made = []
    for variant, red in (("base", 40), ("aligned", 200)):
        clip = mp4_bytes([Image.new("RGB", (32, 32), (red, 8 * number, 0)) for number in range(16)], 8.0)
        fields = {"media": clip, "media_sha256": hashlib.sha256(clip).hexdigest(), "media_type": "video/mp4"}
        made.append(generation(variant, modality="video", frames=16, fps=8.0, **fields))
    left, right = store.add_generations(made)
    cast(store, store.create_participant(), left, right, "right")
    assert EXPORTERS["pickapic"](store.exported_votes(), store.media, tmp_path / "all.parquet") == 1
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["image_0_uid"] for row in rows] == [f"{left}#{number}" for number in range(4)]
    for row in rows:
        pixels = [Image.open(io.BytesIO(row[name])).getpixel((16, 16)) for name in ("jpg_0", "jpg_1")]
        assert pixels[0][0] < 80 < 160 < pixels[1][0]
        assert abs(pixels[0][1] - pixels[1][1]) < 12
        assert (row["label_1"], row["num_example_per_prompt"]) == (1.0, 4)


def test_pickapic_and_fastchat_come_back_into_the_same_tables(voted: Store, tmp_path: Path) -> None:
    names = {"pickapic": "pairs", "fastchat": "arena.jsonl", "lmarena": "later.jsonl"}
    for name, path in ((name, tmp_path / file) for name, file in names.items()):
        EXPORTERS[name](voted.exported_votes(), voted.media, path)
        with open_store(tmp_path / f"copy-{name}") as copy:
            first = copy.import_votes(IMPORTERS[name](path, copy.has_generation))
            again = copy.import_votes(IMPORTERS[name](path, copy.has_generation))
            assert (first.votes, again.votes) == (4, 0)
            (mine,), (theirs,) = voted.vote_counts(), copy.vote_counts("emoji")
            if name == "pickapic":  # which has no word for "both bad"
                mine = VoteCount(*mine_names(mine), mine.wins_a, mine.wins_b, mine.ties + mine.both_bad, 0)
            assert theirs == mine
            assert copy.totals().participants == voted.totals().participants
            assert copy.verify() == []
            original, imported = next(voted.exported_votes()), next(copy.exported_votes())
            assert imported.vote.created_at == original.vote.created_at
            assert imported.left.prompt == original.left.prompt
            if name == "pickapic":
                assert imported.left.media_sha256 == original.left.media_sha256
        assert voted.import_votes(read_pickapic(tmp_path / "pairs", voted.has_generation)).votes == 0


def mine_names(count: VoteCount) -> tuple[str, str]:
    return count.variant_a, count.variant_b


def test_fastchats_own_lines_are_read_and_no_address_is_kept(store: Store, tmp_path: Path) -> None:
    """Lines as its server logs them, and as its cleaning writes them."""
    state = {"conv_id": "c1", "model_name": "vicuna-13b", "messages": [["Human", "Hi"], ["Assistant", "Hello"]]}
    other = {**state, "model_name": "llama-7b", "messages": [["Human", "Hi"], ["Assistant", "Yo"]]}
    ip = "203.0.113.7"
    lines = [
        {"tstamp": 1.7e9, "type": "leftvote", "models": ["", ""], "states": [state, other], "ip": ip},
        {"tstamp": 1.7e9, "type": "chat", "model": "vicuna-13b", "state": state, "ip": ip},
        {"model_a": "a", "model_b": "b", "winner": "tie (bothbad)", "judge": ip, "anony": True, "tstamp": 1.7e9},
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = store.import_votes(IMPORTERS["fastchat"](tmp_path / "log.jsonl", store.has_generation))
    assert (report.votes, report.generations) == (2, 4)
    assert store.vote_counts() == [VoteCount("a", "b", 0, 0, 0, 1), VoteCount("llama-7b", "vicuna-13b", 0, 1, 0, 0)]
    assert store.totals().participants == 1
    for file in [*tmp_path.rglob("npo.db*"), *store.media]:
        assert ip.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("fastchat", b"{", "is no JSON"),
        ("pickapic", b"nonsense", "cannot be read as Parquet"),
        ("jsonl", b"{", "is no exported record"),
    ],
)
def test_a_file_that_is_none_of_theirs_gets_one_sentence(
    store: Store, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / "file.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=words):
        store.import_votes(IMPORTERS[name](tmp_path / "file.jsonl", store.has_generation))
    assert store.totals().votes == 0


def test_an_export_is_uploaded_to_the_hub(voted: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = ["--database-url", str(voted.url), "--data-dir", str(tmp_path / "data")]
    with local_hub(tmp_path / "hub", tmp_path / "cache") as hub:
        export = ["export", "--format", "pickapic", "--out", str(tmp_path / "out"), *database]
        assert main([*export, "--push-to-hub", "someone/picks"]) == 0
        assert sorted(file.name for file in hub.folder("datasets", "someone/picks").rglob("*.parquet")) == [
            "test.parquet",
            "train.parquet",
            "validation.parquet",
        ]
    assert main([*export, "--push-to-hub", "no/such/name"]) == 2
    assert "cannot be written" in capsys.readouterr().err


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
    people = [voted.participant_of_code(vote.vote.participant_id) for vote in votes]
    voted.flag_participant(people[0], "a robot")
    voted.unvote([votes[1].ballot.id], people[1])
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
        ('"seed": 9223372036854775807', '"seed": 9223372036854775808'),
        ('"steps": 20', '"steps": 3000000000'),
        ('"alpha": 1.0', '"alpha": NaN'),
        ('"comparison_id": "c1"', r'"comparison_id": "\ud800"'),
        ('"scheduler": "ddim"', f'"scheduler": "{"d" * 65}"'),
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


def test_a_prompt_that_is_a_formula_does_nothing_in_a_spreadsheet(store: Store, tmp_path: Path) -> None:
    person = store.create_participant()
    formulas = ['=HYPERLINK("http://evil.example")', "+1", "-1", "@SUM(A1)", "\t=1"]
    for number, formula in enumerate(formulas):
        ids = add_comparison(store, f"c{number}", prompt=formula)
        cast(store, person, ids["base"], ids["aligned"], "left")
    EXPORTERS["csv"](store.exported_votes(), store.media, tmp_path / "votes.csv")
    with (tmp_path / "votes.csv").open(encoding="utf-8", newline="") as file:
        assert [row["prompt"] for row in csv.DictReader(file)] == [f"'{formula}" for formula in formulas]


def test_times_keep_their_microseconds(voted: Store) -> None:
    votes = [vote.vote for vote in voted.exported_votes()]
    assert all(vote.created_at.utcoffset() == timedelta(0) for vote in votes)
    assert votes == sorted(votes, key=lambda vote: vote.created_at)
