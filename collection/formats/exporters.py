"""Votes as files. EXPORTERS: name -> writer(votes, media, path) -> how many votes it wrote.

jsonl       everything, pictures and latents too; `read_jsonl` and `python -m collection import` read it back
csv         one row a vote, without pictures, for a spreadsheet or pandas
pickapic    Parquet with the columns of Pick-a-Pic v1, in splits by prompt, for preference trainers
npo         the same with every pair reversed and no ties, for trainers that do not reverse by themselves
fastchat    a JSON line a vote, as FastChat's arena writes them; lmarena the same with LMArena's later columns
simpletuner, onetrainer, sd-scripts, verl-omni
            folders of pairs as those trainers read them; see trainers.py
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_type_hints

import numpy as np

from collection.database.models import pack_latents, unpack_latents
from collection.errors import InputError
from collection.files import replacing
from collection.formats.fastchat import read_fastchat, write_fastchat, write_lmarena
from collection.formats.foreign import Importable
from collection.formats.pickapic import write_npo, write_pickapic
from collection.formats.pickapic_reading import read_pickapic
from collection.formats.tables import is_table, table_columns
from collection.formats.trainers import write_onetrainer, write_sd_scripts, write_simpletuner, write_verl_omni
from collection.media.stores import Media
from collection.texts import json_entries, lines_of
from collection.types import ExportedVote, Generation, StoredBallot, StoredVote, fits_type

Exporter = Callable[[Iterable[ExportedVote], Media, Path], int]
Record = Generation | StoredBallot | StoredVote
Importer = Callable[[Path, Callable[[str], bool]], Iterator[Importable]]
RECORDS: Final[dict[str, type[Record]]] = {"generation": Generation, "ballot": StoredBallot, "vote": StoredVote}
NAMES: Final = {kind: name for name, kind in RECORDS.items()}


def write_jsonl(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
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
    for number, line in lines_of(path):
        try:
            yield _from_line(line)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise InputError(
                f"Line {number} of {path} is no exported record ({error}); give a file made by "
                "`python -m collection export --format jsonl`."
            ) from None


def write_csv(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """A row a vote with CSV_COLUMNS."""
    written = 0
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS)
        writer.writeheader()
        for vote in votes:
            writer.writerow(_csv_row(vote))
            written += 1
    return written


FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")
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
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    """A spreadsheet runs a text that begins like a formula; an apostrophe before it makes it a text again."""
    if isinstance(value, str) and value.startswith(FORMULA_SIGNS):
        return f"'{value}"
    return value.isoformat() if isinstance(value, datetime) else value


EXPORTERS: Final[dict[str, Exporter]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "pickapic": write_pickapic,
    "npo": write_npo,
    "fastchat": write_fastchat,
    "lmarena": write_lmarena,
    "simpletuner": write_simpletuner,
    "onetrainer": write_onetrainer,
    "sd-scripts": write_sd_scripts,
    "verl-omni": write_verl_omni,
}
FOR_TRAINING: Final = ("pickapic", "npo", "simpletuner", "onetrainer", "sd-scripts", "verl-omni")
"""Formats that trainers read, which cannot tell a clip's frames from pictures: one of them holds one modality."""

IMPORTERS: Final[dict[str, Importer]] = {  # name -> reader(path, is this generation here?) -> records for import_votes
    "jsonl": lambda path, _: read_jsonl(path),
    "pickapic": read_pickapic,
    "fastchat": read_fastchat,
    "lmarena": read_fastchat,
}


def format_of(path: Path) -> str:
    """Which importer reads a file or folder, by its content."""
    if is_table(path):
        return "fastchat" if {"model_a", "winner"} <= set(table_columns(path)) else "pickapic"
    if not path.is_file():  # a folder, or nothing: the reader says what is wrong
        return "pickapic"
    _, first = next(json_entries(path), (0, None))
    return "jsonl" if isinstance(first, dict) and "record" in first else "fastchat"


class Counted:
    """Votes, and how many of them have been looked at."""

    def __init__(self, votes: Iterable[ExportedVote]) -> None:
        self._votes, self.number = votes, 0

    def __iter__(self) -> Iterator[ExportedVote]:
        for vote in self._votes:
            self.number += 1
            yield vote


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
        return moment.astimezone(UTC)
    if name == "media":
        return base64.b64decode(value, validate=True)
    if name == "latents":
        shape = "x".join(str(int(size)) for size in value["shape"])
        return unpack_latents(base64.b64decode(value["float16"], validate=True), shape)
    return value
