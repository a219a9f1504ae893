"""Text files as people really have them, for everything that reads one: lines, JSON, JSON lines, CSV, TOML.

UTF-8 with or without a byte-order mark, or UTF-16 with one. A line ends at \\n (or \\r\\n) and nowhere else: U+2028,
U+0085 or a form feed inside a prompt is part of the prompt. Whether a file is JSON or JSON lines is told by its
content. What cannot be read is an InputError that names the line and the cause.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

from collection.errors import InputError

DELIMITERS: Final = ",;\t"  # Excel writes semicolons where the comma is the decimal sign
MARK: Final = "\ufeff"  # the byte-order mark, decoded
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SEPARATOR: Final = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # the line by which Excel says its delimiter
UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")  # what no database and no UTF-8 file can hold


def read_text(path: Path) -> str:
    """The whole text of a file, its line ends as they are."""
    try:
        content = path.read_bytes()
        if content.startswith(_UTF16):
            return content.decode("utf-16")
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); give another one.") from None
    except UnicodeDecodeError:
        raise InputError(f"The file {path} cannot be read as the UTF-16 it begins as; save it as UTF-8.") from None
    return _decoded(path, content, 1)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of each line, one at a time: a file may be larger than the memory."""
    try:
        with path.open("rb") as file:
            wide = file.read(2) in _UTF16
            file.seek(0)
            parts = (line.encode() for line in io.StringIO(read_text(path), newline="\n")) if wide else file
            for number, part in enumerate(parts, start=1):  # a binary file is cut at \n only
                yield number, _decoded(path, part, number).removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); give another one.") from None


def _decoded(path: Path, content: bytes, number: int) -> str:
    """`content`, which begins in line `number`, as text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = number + content.count(b"\n", 0, error.start)
        raise InputError(
            f"Line {line} of {path} cannot be read: its byte 0x{content[error.start]:02x} is not UTF-8; save the file "
            "as UTF-8."
        ) from None
    return text.removeprefix(MARK) if number == 1 else text


def json_entries(path: Path) -> Iterator[tuple[int, Any]]:
    """(line, value) of each of a file's JSON lines, or (place, value) of each entry of its one JSON list.

    A single JSON object is one entry. Lines are read one at a time.
    """
    lines = ((number, line.strip(f" \t\r{MARK}")) for number, line in lines_of(path))
    filled = ((number, line) for number, line in lines if line)
    first, second = next(filled, None), next(filled, None)
    if first is None:
        return
    if second is None or not _is_json(first[1]):  # one document, on one line or over many
        document = _parsed(path, read_text(path).strip(f" \t\r\n{MARK}"), 1)
        yield from enumerate(document if isinstance(document, list) else [document], start=1)
        return
    for number, line in chain((first, second), filled):
        yield number, _parsed(path, line, number)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(path: Path, text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, cause = number + error.lineno - 1, f"{error.msg.lower()} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        line, cause = number, str(error)
    raise InputError(
        f"Line {line} of {path} cannot be read: it is no JSON ({cause}); correct it, or give another file."
    )


def csv_rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """(last line, cells by the header's names) of each row; a cell that a short row lacks is None.

    The delimiter is the one that the header has: comma, semicolon or tab. Raises InputError for a row with more cells
    than the header, since it cannot be told which of them belong together, and for a name that stands there twice.
    """
    text = read_text(path)
    told = _SEPARATOR.match(text)
    text = text[told.end() :] if told else text
    head = text.partition("\n")[0]
    found = max(DELIMITERS, key=head.count)
    fallback = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiter = told[1] if told else found if found in head else fallback
    rows = _csv_cells(path, text, delimiter, 1 if told else 0)
    _, header = next(rows, (0, []))
    names = [name.strip() for name in header]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has two columns called {twice!r}; rename one of them.")
    for number, cells in rows:
        if len(cells) > len(names):
            raise InputError(
                f"Line {number} of {path} has {len(cells)} cells and the header {len(names)}; put a text that has a "
                f"{delimiter!r} in it between double quotes."
            )
        yield number, dict(zip(names, [*cells, *[None] * (len(names) - len(cells))], strict=True))


def _csv_cells(path: Path, text: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """(last line, cells) of each row that has any. `skipped` lines stand above the text."""
    # Lists with tabs are often joined by hand, without quoting: there a stray quote is a character like any other.
    by_hand = delimiter == "\t" and not _is_quoted(text)
    quoting: Any = csv.QUOTE_NONE if by_hand else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num + skipped, cells
    except csv.Error as error:
        raise InputError(
            f"Line {reader.line_num + skipped} of {path} cannot be read as a table ({error}); a text with a double "
            "quote in it stands between double quotes, and its own are doubled."
        ) from None


def _is_quoted(text: str) -> bool:
    """Whether every quote that begins a cell also ends it, as a program that writes tables sees to."""
    try:
        list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
    except csv.Error:
        return False
    return True


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"The file {path} is no TOML ({error}); correct it.") from None


def unwritable(text: str) -> str | None:
    """What in `text` no database and no UTF-8 file can hold, in words; None where there is nothing of the kind."""
    found = UNWRITABLE.search(text)
    if found is None:
        return None
    return "a NUL character" if found[0] == "\0" else "half of a surrogate pair"
