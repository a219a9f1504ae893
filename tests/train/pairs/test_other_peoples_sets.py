"""Data sets as other people and `datasets` write them: the right pairs, and every other row counted with its reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image

import train.npo
from collection.__main__ import main as collection_main
from npo_core.catalog.families import FAMILIES
from npo_core.errors import InputError
from npo_core.media.files import sha256_hex
from tests.collection.helpers import add_comparison, cast, generation, open_store
from tests.tiny import tiny_family
from tests.train.pairs.test_dataset import picture, row
from train.pairs.dataset import LatentCache, from_dataset
from train.pairs.pairs import PairSet

NAN = float("nan")
PICTURES = [picture(number) for number in range(8)]


def rows(count: int = 4, **changes: Any) -> list[dict[str, Any]]:
    return [{**row(1.0, *PICTURES[2 * n : 2 * n + 2]), "caption": f"apple {n}", **changes} for n in range(count)]


def with_one(number: int, **changes: Any) -> list[dict[str, Any]]:
    return [each | changes if n == number else each for n, each in enumerate(rows())]


def giant() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def write(table: list[dict[str, Any]], folder: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(table), folder / "train.parquet")
    return folder


def image_features(folder: Path) -> Path:
    features = Features(
        caption=Value("string"),
        jpg_0=datasets.Image(),
        jpg_1=datasets.Image(),
        label_0=Value("float64"),
        label_1=Value("float64"),
    )
    Dataset.from_list(rows(), features=features).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def saved_to_disk(folder: Path) -> Path:
    labels = ClassLabel(names=["no", "yes"])
    features = Features(
        caption=Value("large_string"),
        jpg_0=datasets.Image(),
        jpg_1=Value("large_binary"),
        label_0=labels,
        label_1=labels,
    )
    whole = [{**each, "label_0": 1, "label_1": 0} for each in rows()]
    DatasetDict(train=Dataset.from_list(whole, features=features), test=Dataset.from_list(whole[:1])).save_to_disk(
        folder
    )
    return folder


def paths_only(folder: Path) -> Path:
    table = rows()
    for number, each in enumerate(table):
        for side in "01":
            name = f"{number}{side}.png"
            (folder / name).write_bytes(each[f"jpg_{side}"])
            each[f"jpg_{side}"] = {"bytes": None, "path": name if number else str(folder / name)}
    table[3]["jpg_1"]["path"] = "gone.png"
    return write(table, folder)


def plain_paths(folder: Path) -> Path:
    table = rows(2)
    for number, each in enumerate(table):
        for side in "01":
            (folder / "pictures").mkdir(exist_ok=True)
            (folder / "pictures" / f"{number}{side}.png").write_bytes(each[f"jpg_{side}"])
            each[f"jpg_{side}"] = f"pictures/{number}{side}.png"
    return write(table, folder)


def excel(folder: Path) -> Path:
    for number in range(4):
        (folder / f"{number}.png").write_bytes(PICTURES[number])
    text = '\ufeffcaption;preferred;rejected\r\napple 0;0.png;1.png\r\n"apple; 1";2.png;3.png\r\n'
    (folder / "pairs.csv").write_bytes(text.encode())
    return folder


SETS: dict[str, tuple[Callable[[Path], Path], str, list[int]]] = {  # name -> writer, account, rows that are pairs
    "image_features": (image_features, "4 rows: 4 pairs", [0, 1, 2, 3]),
    "saved_to_disk": (saved_to_disk, "4 rows: 4 pairs", [0, 1, 2, 3]),
    "paths_only": (paths_only, "4 rows: 3 pairs, 1 left out (picture file not found: row 4)", [0, 1, 2]),
    "plain_paths": (plain_paths, "2 rows: 2 pairs", [0, 1]),
    "excel": (excel, "2 rows: 2 pairs", [0, 1]),
    "giant_picture": (
        lambda folder: write(with_one(1, jpg_0=giant()), folder),
        "4 rows: 3 pairs, 1 left out (unreadable picture: row 2)",
        [0, 2, 3],
    ),
    "nan_labels": (
        lambda folder: write([*with_one(1, label_0=NAN, label_1=NAN), row(0.5)], folder),
        "5 rows: 3 pairs, 2 left out (no label: row 2; tie: row 5)",
        [0, 2, 3],
    ),
    "one_null_label": (
        lambda folder: write(with_one(2, label_0=None), folder),
        "4 rows: 3 pairs, 1 left out (no label: row 3)",
        [0, 1, 3],
    ),
    "null_captions": (
        lambda folder: write([*with_one(0, caption=None), row(1.0, *PICTURES[:2], caption=" ")], folder),
        "5 rows: 3 pairs, 2 left out (no caption: rows 1, 5)",
        [1, 2, 3],
    ),
    "texts_for_labels": (
        lambda folder: write([each | {"label_0": "1.0", "label_1": "0"} for each in rows()], folder),
        "4 rows: 4 pairs",
        [0, 1, 2, 3],
    ),
    "endless_labels": (
        lambda folder: write(with_one(3, label_0=float("inf")), folder),
        "4 rows: 3 pairs, 1 left out (a label that is no number: row 4)",
        [0, 1, 2],
    ),
    "null_pictures": (
        lambda folder: write(with_one(0, jpg_0=None), folder),
        "4 rows: 3 pairs, 1 left out (unreadable picture: row 1)",
        [1, 2, 3],
    ),
    "null_has_label": (
        lambda folder: write([each | {"has_label": None} for each in rows(2)], folder),
        "2 rows: 2 pairs",
        [0, 1],
    ),
}


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_a_pair_or_is_counted_with_its_reason(name: str, tmp_path: Path, cache: LatentCache) -> None:
    make, account, used = SETS[name]
    (tmp_path / "set").mkdir()
    found = from_dataset(str(make(tmp_path / "set")), cache)
    assert str(found.account) == account
    assert [int(pair.source.rpartition("#")[2]) for pair in found.pairs] == used
    assert sum(found.dropped.values()) + len(found.pairs) == found.account.read  # type: ignore[union-attr]
    for number, pair in zip(used, found.pairs, strict=True):
        assert pair.prompt in (f"apple {number}", f"apple; {number}")
        for latents, side in ((pair.preferred, 0), (pair.rejected, 1)):
            np.testing.assert_array_equal(latents, cache.latents([PICTURES[2 * number + side]])[0])


def splits(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names, start=1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([row(1.0, *PICTURES[:2], caption=name)] * number)
        pq.write_table(table, folder / name)
    return folder


HUB = [f"data/{split}-00000-of-00001-0ab.parquet" for split in ("test", "test_unique", "train", "validation")]


@pytest.mark.parametrize(
    ("names", "split", "taken"),
    [
        (HUB, "test", [HUB[0]]),
        (HUB, "test_unique", [HUB[1]]),
        (HUB, "train", [HUB[2]]),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "train_extra.parquet"], "train", [0, 1]),
        (["default/train/0000.parquet", "default/test/0000.parquet"], "test", [1]),
        (["a.parquet", "b.parquet"], "train", [0, 1]),
        (["a.parquet", "b.parquet"], "b", [1]),
        (["train.parquet", "gold.parquet"], "gold", [1]),
    ],
)
def test_a_split_is_exactly_its_files(
    names: list[str],
    split: str,
    taken: list[Any],
    tmp_path: Path,
    cache: LatentCache,
) -> None:
    found = from_dataset(str(splits(tmp_path / "set", names)), cache, split=split)
    wanted = {names[each] if isinstance(each, int) else each for each in taken}
    assert {pair.prompt for pair in found.pairs} == wanted
    assert len(found.pairs) == sum(names.index(name) + 1 for name in wanted)


@pytest.mark.parametrize(
    ("split", "names"), [("nosuch", HUB), ("data", HUB), ("train", HUB[:2]), ("test", ["a.parquet"])]
)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(
    split: str,
    names: list[str],
    tmp_path: Path,
    cache: LatentCache,
) -> None:
    with pytest.raises(InputError, match=f"has no split '{split}'; choose from (test, test_unique|a)"):
        from_dataset(str(splits(tmp_path / "set", names)), cache, split=split)


def test_a_file_that_is_cut_short_or_no_table_is_refused(tmp_path: Path, cache: LatentCache) -> None:
    write(rows(), tmp_path)
    whole = (tmp_path / "train.parquet").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"PAR1", b"ARROW1\0\0nonsense", b"text"):
        (tmp_path / "torn.parquet").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as Parquet or Arrow after row 0"):
            from_dataset(str(tmp_path / "torn.parquet"), cache)


def test_a_limit_counts_only_what_was_read(tmp_path: Path, cache: LatentCache) -> None:
    found: PairSet = from_dataset(str(write([row(0.5), *rows()], tmp_path)), cache, max_pairs=2)
    assert str(found.account) == "3 rows: 2 pairs, 1 left out (tie: row 1)"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = train.npo.main([*arguments, "--family", "tiny", "--dry-run", "--held-out", "0"])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_a_run_tells_what_it_took_and_one_that_finds_too_little_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", tiny_family(tmp_path))
    (tmp_path / "set").mkdir()
    write(with_one(1, jpg_0=giant()), tmp_path / "set")
    command = ["--dataset", str(tmp_path / "set"), "--data-dir", str(tmp_path / "data")]
    account = "4 rows: 3 pairs, 1 left out (unreadable picture: row 2)"
    status, told = run(capsys, *command, "--min-pairs", "3")
    assert status == 0
    assert told.startswith("NPO for Tiny: 3 pairs on 3 prompts")
    assert account in told
    status, told = run(capsys, *command, "--min-pairs", "4")
    assert (status, told.count("\n")) == (2, 1)
    assert f"has 3 usable pairs and training wants 4 (there are {account})" in told


def test_imported_pictures_have_no_latents_and_a_run_says_how_to_train_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", tiny_family(tmp_path))
    with open_store(tmp_path) as store:
        ids = add_comparison(
            store, family="tiny", latents=None, media=PICTURES[0], media_sha256=sha256_hex(PICTURES[0])
        )
        other = generation(
            "other", family="tiny", latents=None, media=PICTURES[1], media_sha256=sha256_hex(PICTURES[1])
        )
        (second,) = store.add_generations([other])
        cast(store, store.create_participant(), ids["base"], second, "left")
    database = ["--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path / "data")]
    status, told = run(capsys, "--from-db", "--min-pairs", "1", *database)
    assert (status, told.count("\n")) == (2, 1)
    assert "left out: 1 on pictures made elsewhere, which have no latents" in told
    pairs = str(tmp_path / "pairs.parquet")  # what the sentence advises
    assert collection_main(["export", "--format", "pickapic", "--out", pairs, *database]) == 0
    assert run(capsys, "--dataset", pairs, "--min-pairs", "1", *database)[0] == 0
