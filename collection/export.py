"""Votes as files. EXPORTERS: name -> writer(votes, media, path) -> how many votes it wrote.

jsonl       everything, pictures and latents too; `read_jsonl` and `python -m collection import` read it back
csv         one row a vote, without pictures, for a spreadsheet or pandas
pick-a-pic  a parquet file with the columns of Pick-a-Pic v1 (yuvalkirstain/pickapic_v1), for preference trainers
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_type_hints

import numpy as np

from collection.errors import InputError
from collection.media_files import MediaFiles
from collection.models import pack_latents, unpack_latents
from collection.records import ExportedVote, Generation, StoredBallot, StoredVote, fits_type

Exporter = Callable[[Iterable[ExportedVote], MediaFiles, Path], int]
Record = Generation | StoredBallot | StoredVote
RECORDS: Final[dict[str, type[Record]]] = {"generation": Generation, "ballot": StoredBallot, "vote": StoredVote}
NAMES: Final = {kind: name for name, kind in RECORDS.items()}


def write_jsonl(votes: Iterable[ExportedVote], media: MediaFiles, path: Path) -> int:
    """A line a record, each before what refers to it; a picture's bytes stand where it first occurs."""
    written = 0
    seen: set[str | None] = set()
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for vote in votes:
            for generation in (vote.left, vote.right):
                if generation.id not in seen:
                    seen.add(generation.id)
                    content = media.read(generation.media_sha256, generation.media_type)
                    file.write(_to_line(replace(generation, media=content)))
            file.write(_to_line(vote.ballot))
            file.write(_to_line(vote.vote))
            written += 1
    return written


def read_jsonl(path: Path) -> Iterator[Record]:
    """The records of a file that `write_jsonl` wrote; InputError names the line that is no such record."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield _from_line(line)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise InputError(
                        f"Line {number} of {path} is no exported record ({error}); give a file made by "
                        "`python -m collection export --format jsonl`."
                    ) from None
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); give an exported .jsonl file.") from None


def write_csv(votes: Iterable[ExportedVote], media: MediaFiles, path: Path) -> int:
    """A row a vote with CSV_COLUMNS."""
    written = 0
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        for vote in votes:
            writer.writerow(_csv_row(vote))
            written += 1
    return written


VOTE_COLUMNS: Final = ("id", "created_at", "changed_at", "participant_id", "choice", "first_choice")
BALLOT_COLUMNS: Final = ("blind", "kind", "study", "comparison_id", "left_generation_id", "right_generation_id")
SHARED_COLUMNS: Final = ("family", "modality", "prompt", "negative_prompt", "seed")
SIDE_COLUMNS: Final = (
    *("variant", "aligned_id", "aligned_sha256", "negative_id", "negative_sha256", "alpha", "beta"),
    *("guidance_scale", "steps", "scheduler", "width_px", "height_px", "frames", "fps", "media_sha256"),
)
CSV_COLUMNS: Final = (
    *VOTE_COLUMNS,
    *("response_time_s", "flag"),
    *BALLOT_COLUMNS,
    *SHARED_COLUMNS,
    *(f"{side}_{column}" for side in ("left", "right") for column in SIDE_COLUMNS),
)


def _csv_row(vote: ExportedVote) -> dict[str, Any]:
    row = {name: getattr(vote.vote, name) for name in (*VOTE_COLUMNS, "response_time_s", "flag")}
    row |= {name: getattr(vote.ballot, name) for name in BALLOT_COLUMNS}
    row |= {name: getattr(vote.left, name) for name in SHARED_COLUMNS}
    row |= {f"left_{name}": getattr(vote.left, name) for name in SIDE_COLUMNS}
    row |= {f"right_{name}": getattr(vote.right, name) for name in SIDE_COLUMNS}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def write_pick_a_pic(votes: Iterable[ExportedVote], media: MediaFiles, path: Path) -> int:
    """The 19 columns of Pick-a-Pic v1, left = 0 and right = 1. Clips, skips and flagged votes are left out.

    "Both bad" prefers neither, so it is a tie there (best_image_uid "none", labels 0.5, has_label False).
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise InputError("The pick-a-pic format needs pyarrow; run `pip install pyarrow`.") from None
    kept = [
        replace(vote, left=replace(vote.left, latents=None), right=replace(vote.right, latents=None))
        for vote in votes
        if vote.left.modality == "image" and vote.vote.choice != "skip" and vote.vote.flag is None
    ]
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in PICK_A_PIC_COLUMNS.items()])
    per_prompt = Counter(vote.left.prompt for vote in kept)
    with replacing(path) as part, pq.ParquetWriter(part, schema) as writer:
        for start in range(0, len(kept), ROWS_PER_GROUP):  # pictures are read a group at a time
            rows = [
                _pick_a_pic_row(vote, media) | {"__index_level_0__": index}
                for index, vote in enumerate(kept[start : start + ROWS_PER_GROUP], start)
            ]
            counted = [row | {"num_example_per_prompt": per_prompt[row["caption"]]} for row in rows]
            writer.write_table(pa.Table.from_pylist(counted, schema=schema))
    return len(kept)


ROWS_PER_GROUP: Final = 200
PICK_A_PIC_COLUMNS: Final = {
    "are_different": "bool",
    "best_image_uid": "string",
    "caption": "string",
    "created_at": "timestamp[ns]",
    "has_label": "bool",
    "image_0_uid": "string",
    "image_0_url": "string",
    "image_1_uid": "string",
    "image_1_url": "string",
    "jpg_0": "binary",
    "jpg_1": "binary",
    "label_0": "float64",
    "label_1": "float64",
    "model_0": "string",
    "model_1": "string",
    "ranking_id": "int64",
    "user_id": "int64",
    "num_example_per_prompt": "int64",
    "__index_level_0__": "int64",
}


def _pick_a_pic_row(vote: ExportedVote, media: MediaFiles) -> dict[str, Any]:
    left, right = vote.left, vote.right
    label_0 = {"left": 1.0, "right": 0.0}.get(vote.vote.choice, 0.5)
    best = {"left": left.id, "right": right.id}.get(vote.vote.choice, "none")
    models = [f"{generation.family}/{generation.variant}" for generation in (left, right)]
    return {
        "are_different": models[0] != models[1],
        "best_image_uid": best,
        "caption": left.prompt,
        "created_at": vote.vote.created_at.astimezone(UTC).replace(tzinfo=None),
        "has_label": label_0 != 0.5,
        "image_0_uid": left.id,
        "image_0_url": "",
        "image_1_uid": right.id,
        "image_1_url": "",
        "jpg_0": media.read(left.media_sha256, left.media_type),
        "jpg_1": media.read(right.media_sha256, right.media_type),
        "label_0": label_0,
        "label_1": 1.0 - label_0,
        "model_0": models[0],
        "model_1": models[1],
        "ranking_id": _stable_int(vote.ballot.id),
        "user_id": _stable_int(vote.vote.participant_id),
    }


EXPORTERS: Final[dict[str, Exporter]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "pick-a-pic": write_pick_a_pic,
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place once the block has ended without an error."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        raise InputError(f"The file {path} cannot be written ({error.strerror}); give another one.") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _stable_int(text: str) -> int:
    """A positive int64 for an opaque id, the same on every export."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _to_line(record: Record) -> str:
    fields = {"record": NAMES[type(record)]} | {name: _to_json(value) for name, value in vars(record).items()}
    return json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n"


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return {"shape": list(value.shape), "float16": base64.b64encode(pack_latents(value)).decode()}
    return value


def _from_line(line: str) -> Record:
    fields = json.loads(line)
    kind = RECORDS[fields.pop("record")]
    for name, hint in get_type_hints(kind).items():
        fields[name] = value = _from_json(name, fields.get(name))
        if not fits_type(value, hint):
            raise ValueError(f"{name} is {value!r}")
    return kind(**fields)


def _from_json(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name.endswith("_at"):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(f"{name} has no time zone")
        return moment
    if name == "media":
        return base64.b64decode(value, validate=True)
    if name == "latents":
        shape = "x".join(str(int(size)) for size in value["shape"])
        return unpack_latents(base64.b64decode(value["float16"], validate=True), shape)
    return value
