"""Prompts of a study: a bundled list, or a file as PartiPrompts, HPDv2 and Pick-a-Pic come.

.txt      a prompt a line
.tsv .csv a header with Prompt (or caption, or text) and, if it likes, Category: PartiPrompts.tsv as published
.json     a list of prompts (HPDv2's benchmark files: the category is the file's name) or of objects as in .jsonl
.jsonl    an object a line, with the names of the columns above
.parquet  the column caption or prompt: Pick-a-Pic; pictures are not read
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collection.account import Account, said
from collection.errors import InputError
from collection.texts import csv_rows, json_entries, lines_of, unwritable

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
    return read_prompts(source)[0]


def read_prompts(source: str) -> tuple[list[Prompt], Account]:
    """As `load_prompts`, with the account of what the file held."""
    path = BUNDLED.get(source) or Path(source)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"The prompts are {source!r}; give a bundled list ({', '.join(BUNDLED)}) or a file ({', '.join(READERS)})."
        )
    prompts: dict[str, Prompt] = {}
    account = Account("entry", "prompt")
    for place, prompt in reader(path):
        if not prompt.text:
            account.leave_out("no prompt", place)
        elif prompt.text in prompts:
            account.leave_out("a prompt that stands above", place)
        elif (fault := unwritable(prompt.text)) is not None:
            raise InputError(f"The prompt {place} of {source} has {fault} in it, which nothing can keep; take it out.")
        else:
            prompts[prompt.text] = prompt
            account.keep()
    if not prompts:
        raise InputError(f"The prompts {source} are empty ({account}); give a file with at least one.")
    return list(prompts.values()), account


def _read_text(path: Path) -> Iterator[tuple[int, Prompt]]:
    return ((number, Prompt(line.strip())) for number, line in lines_of(path) if line.strip())


def _read_table(path: Path) -> Iterator[tuple[int, Prompt]]:
    return ((number, _of_row(row, path)) for number, row in csv_rows(path))


def _read_json(path: Path) -> Iterator[tuple[int, Prompt]]:
    """A list's own texts have the file's name as their category."""
    for place, entry in json_entries(path):
        if isinstance(entry, str):
            yield place, Prompt(entry.strip(), _shortened(path.stem) if path.suffix.lower() == ".json" else "")
        else:
            yield place, _of_row(entry, path)


def _read_parquet(path: Path) -> Iterator[tuple[int, Prompt]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        wanted = [name for name in file.schema_arrow.names if name.lower() in (*PROMPT_NAMES, CATEGORY_NAME)]
        rows = (row for batch in file.iter_batches(columns=wanted) for row in batch.to_pylist())
        yield from ((number, _of_row(row, path)) for number, row in enumerate(rows, start=1))
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"The prompts {path} cannot be read as Parquet ({reason}); give another file.") from None


READERS: Final = {
    ".txt": _read_text,
    ".tsv": _read_table,
    ".csv": _read_table,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
}


def _of_row(row: Any, path: Path) -> Prompt:
    if not isinstance(row, Mapping):
        raise InputError(f"The prompts {path} cannot be read: {row!r} is no prompt; give texts or objects with one.")
    values = {str(name).strip().lower(): said(value) for name, value in row.items()}
    name = next((name for name in PROMPT_NAMES if name in values), None)
    if name is None and path.suffix.lower() == ".json":
        raise InputError(f"The prompts {path} cannot be read: it holds no list of texts or of objects with a prompt.")
    if name is None:
        raise InputError(f"The prompts {path} have no column {', '.join(PROMPT_NAMES)}; name one of its columns so.")
    text, category = values[name], values.get(CATEGORY_NAME)
    if text is not None and not isinstance(text, str):
        raise InputError(f"The prompts {path} cannot be read: {text!r} is no prompt; give a text.")
    return Prompt((text or "").strip(), _shortened(str(category or "")))


def _shortened(category: str) -> str:
    return category.strip()[:LONGEST_CATEGORY]
