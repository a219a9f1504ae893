"""Prompts of a study: a bundled list, or a file as PartiPrompts, HPDv2 and Pick-a-Pic come.

.txt      a prompt a line
.tsv .csv a header with Prompt (or caption, or text) and, if it likes, Category: PartiPrompts.tsv as published
.json     a list of prompts (HPDv2's benchmark files: the category is the file's name) or of objects as in .jsonl
.jsonl    an object a line, with the names of the columns above
.parquet  the column caption or prompt: Pick-a-Pic; pictures are not read
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collection.errors import InputError

BUNDLED: Final = {path.stem: path for path in sorted((Path(__file__).parent / "prompt_lists").glob("*.tsv"))}
PROMPT_NAMES: Final = ("prompt", "caption", "text")
CATEGORY_NAME: Final = "category"
LONGEST_CATEGORY: Final = 64


@dataclass(frozen=True)
class Prompt:
    """A text to draw, and the kind of thing it asks for ("" where the list does not say)."""

    text: str
    category: str = ""


def load_prompts(source: str) -> list[Prompt]:
    """The prompts of a bundled list or a file, in order, each text once; InputError when there are none."""
    path = BUNDLED.get(source) or Path(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"The prompts are {source!r}; give a bundled list ({', '.join(BUNDLED)}) or a file ({', '.join(READERS)})."
        )
    try:
        found = list(reader(path))
    except OSError as error:
        raise InputError(
            f"The prompts {source} cannot be read ({error.strerror or error}); give another file."
        ) from None
    except (ValueError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The prompts {source} cannot be read ({error}); give another file.") from None
    prompts: dict[str, Prompt] = {}
    for prompt in found:
        if prompt.text:
            prompts.setdefault(prompt.text, prompt)
    if not prompts:
        raise InputError(f"The prompts {source} are empty; give a file with at least one.")
    return list(prompts.values())


def _read_text(path: Path) -> Iterable[Prompt]:
    return [Prompt(line.strip()) for line in path.read_text(encoding="utf-8").splitlines()]


def _read_table(path: Path) -> Iterable[Prompt]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","):
            yield _of_row(row, path)


def _read_json(path: Path) -> Iterable[Prompt]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise ValueError("it holds no list")
    for entry in content:
        yield Prompt(entry.strip(), _shortened(path.stem)) if isinstance(entry, str) else _of_row(entry, path)


def _read_json_lines(path: Path) -> Iterable[Prompt]:
    return [_of_row(json.loads(line), path) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_parquet(path: Path) -> Iterable[Prompt]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    wanted = [name for name in file.schema_arrow.names if name.lower() in (*PROMPT_NAMES, CATEGORY_NAME)]
    for batch in file.iter_batches(columns=wanted):
        for row in batch.to_pylist():
            yield _of_row(row, path)


READERS: Final = {
    ".txt": _read_text,
    ".tsv": _read_table,
    ".csv": _read_table,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def _of_row(row: Any, path: Path) -> Prompt:
    if not isinstance(row, Mapping):
        raise ValueError(f"{row!r} is no prompt")
    values = {str(name).strip().lower(): value for name, value in row.items() if name is not None}
    text = next((values[name] for name in PROMPT_NAMES if name in values), None)
    if text is None:
        raise InputError(f"The prompts {path} have no column {', '.join(PROMPT_NAMES)}; name one of its columns so.")
    return Prompt(str(text or "").strip(), _shortened(str(values.get(CATEGORY_NAME) or "")))


def _shortened(category: str) -> str:
    return category.strip()[:LONGEST_CATEGORY]
