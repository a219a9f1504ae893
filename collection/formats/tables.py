"""Tables as people have them: Parquet and Arrow files, one or a folder of them in splits, as `datasets` and others
write them. Null and NaN both say nothing and come as None; pictures come in whatever form a column keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from collection.account import said
from collection.errors import InputError

Row = dict[str, Any]

SUFFIXES: Final = (".parquet", ".arrow", ".feather")
ROWS_AT_ONCE: Final = 200
STREAM_START: Final = b"\xff\xff\xff\xff"  # of an Arrow stream, which has no name of its own
DEFAULT_SPLIT: Final = "train"  # what files that name no split are, to `datasets` too
UNREADABLE: Final = (OSError, ValueError, OverflowError, pa.ArrowException)  # what Arrow raises for broken files
NO_PICTURE, NO_PICTURE_FILE = "unreadable picture", "picture file not found"

_SHARD: Final = re.compile(r"[-_.]\d+(-of-\d+.*)?$")  # train-00000-of-00001-3ff0a8.parquet, train_0.parquet
_SPLIT: Final = re.compile(r"(train|training|validation|valid|val|dev|test|testing|eval|evaluation)([-_]\w+)?")


def table_files(source: Path, split: str | None = None) -> list[Path]:
    """The file at `source`, or those of `split` in the folder there (None: of all splits), in the order of their names.

    A file belongs to the split that its name says, or else a folder above it; to `train` where no file names one.
    Raises InputError when there is no such file, or no such split.
    """
    if not source.is_dir():
        return [source]
    found = [
        path for path in sorted(source.rglob("*")) if path.suffix in SUFFIXES and not path.name.startswith("cache-")
    ]
    if not found:
        raise InputError(f"The folder {source} holds no table ({', '.join(SUFFIXES)}); give one that does.")
    if split is None:
        return found
    names = {path: _split_of(path.relative_to(source)) for path in found}
    chosen = [path for path in found if names[path] == split]
    if not chosen and split == DEFAULT_SPLIT and not any(map(_SPLIT.fullmatch, names.values())):
        return found
    if not chosen:
        raise InputError(f"{source} has no split {split!r}; choose from {', '.join(sorted(set(names.values())))}.")
    return chosen


def _split_of(path: Path) -> str:
    """The split that the file at `path`, from the data set's folder on, belongs to."""
    stem = _SHARD.sub("", path.stem)
    named = [stem, *reversed(path.parts[:-1])]
    return next((name for name in named if _SPLIT.fullmatch(name)), stem or path.stem)


def table_rows(path: Path, columns: Collection[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet or Arrow file, told apart by their content; `columns` leaves out all others.

    Raises InputError, in the middle too, for what cannot be read.
    """
    number = 0
    try:
        for batch in _batches(path, columns):
            for row in batch.to_pylist():
                yield {name: said(value) for name, value in row.items()}
                number += 1
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as Parquet or Arrow after row {number} ({reason_of(error)}); download or write it "
            "again."
        ) from None


def table_columns(path: Path) -> list[str]:
    """The names of the columns, of a table with any row; InputError as for the rows."""
    return list(next(table_rows(path), {}))


def reason_of(error: Exception) -> str:
    """Why, in one line: Arrow tells its whole story."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_table(path: Path) -> bool:
    """Whether the file at `path` begins as Parquet or Arrow files do."""
    try:
        with path.open("rb") as file:
            return file.read(6).startswith((b"PAR1", b"ARROW1", STREAM_START))
    except OSError:  # whoever reads it says why
        return False


def _batches(path: Path, columns: Collection[str] | None) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        table = pq.ParquetFile(path)
        wanted = [name for name in table.schema_arrow.names if columns is None or name in columns]
        yield from table.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted)
        return
    with pa.memory_map(str(path)) as file:
        stored = pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)
        is_file = isinstance(stored, pa.ipc.RecordBatchFileReader)
        batches = (stored.get_batch(at) for at in range(stored.num_record_batches)) if is_file else stored
        for batch in batches:
            wanted = [name for name in batch.schema.names if columns is None or name in columns]
            for start in range(0, batch.num_rows, ROWS_AT_ONCE):
                yield batch.select(wanted).slice(start, ROWS_AT_ONCE)


def picture_in(value: Any, folder: Path) -> bytes | str:
    """The encoded picture that a cell holds, or why there is none (NO_PICTURE, NO_PICTURE_FILE).

    The cell holds bytes, the path of a file (from `folder` on), or both as `datasets` keeps its Image feature.
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str) and value:
        return _file_at(folder / value)
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) and value else NO_PICTURE


def _file_at(path: Path) -> bytes | str:
    try:
        return path.read_bytes() if path.is_file() else NO_PICTURE_FILE  # a device would be read for ever
    except (OSError, ValueError):  # a NUL in the name is a ValueError
        return NO_PICTURE_FILE
