"""Moves everything from one database to another, whatever the two are: `python -m collection copy-to URL`.

Table by table, in an order in which nothing refers to what is not there yet, in batches that are compared before they
are written: only rows that are missing or different travel. So a copy that broke off goes on where it was, and one
made again brings over what changed meanwhile. Afterwards both sides are read again: the same number of rows and the
same hash of all of them, or it is said which table differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, func, select, text, tuple_

from collection.database.dialects import insert_or_change
from collection.database.engine import for_reading, for_writing
from collection.database.models import Base
from collection.errors import InputError

BATCH_VALUES: Final = 8_000  # key values in a statement: every database bounds its parameters

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TableCopy:
    """What became of a table: rows there are, rows that had to travel, the hash that both sides have."""

    table: str
    rows: int
    written: int
    sha256: str


def copy_tables(source: Engine, target: Engine, progress: Progress = lambda line: None) -> list[TableCopy]:
    """Brings the rows of `source`, one moment of it, to `target`, which has the same schema; tells of each table.

    Each batch is a transaction of its own. Raises InputError where the target has rows that the source has not, and
    where the two differ in the end.
    """
    copies = []
    with for_reading(source).begin() as reading:
        for table in Base.metadata.sorted_tables:
            written = sum(_copy_batch(target, table, rows) for rows in _batches(reading, table))
            ours = _fingerprint(reading, table)
            with for_reading(target).begin() as checking:
                theirs = _fingerprint(checking, table)
            if ours != theirs:
                raise InputError(_difference(table.name, ours, theirs))
            copies.append(TableCopy(table.name, ours[0], written, ours[1]))
            progress(f"{table.name}: {ours[0]} rows, {written} written, sha256 {ours[1][:16]}")
    if target.dialect.name == "postgresql":
        _continue_numbers(target)
    return copies


def _difference(name: str, ours: tuple[int, str], theirs: tuple[int, str]) -> str:
    if theirs[0] > ours[0]:
        return (
            f"The target has {theirs[0]} rows in {name}, {theirs[0] - ours[0]} more than there are to copy; "
            "give an empty database, or one that an earlier copy of this database was made to."
        )
    return (
        f"After copying, {name} differs: {ours[0]} rows with the hash {ours[1][:16]} here, {theirs[0]} with "
        f"{theirs[1][:16]} there; see that nobody writes to the target and copy again."
    )


def _batches(connection: Connection, table: Table) -> Iterator[list[dict[str, Any]]]:
    """All rows in the order of their keys, so many at once that their keys fit into a statement."""
    keys = list(table.primary_key.columns)
    size = max(1, min(1000, BATCH_VALUES // len(keys)))
    rows = connection.execution_options(yield_per=size).execute(select(table).order_by(*keys))
    for some in rows.mappings().partitions(size):
        yield [dict(row) for row in some]


def _copy_batch(target: Engine, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Writes those of `rows` that the target has not, or has otherwise; returns how many."""
    keys = list(table.primary_key.columns)
    these = tuple_(*keys).in_([tuple(row[key.name] for key in keys) for row in rows])
    with for_writing(target).begin() as connection:
        there = {_key(row, keys): _canonical(row) for row in connection.execute(select(table).where(these)).mappings()}
        missing = [row for row in rows if there.get(_key(row, keys)) != _canonical(row)]
        if missing:
            new = insert_or_change(target.dialect.name, table)
            rest = {column.name: new.excluded[column.name] for column in table.columns if not column.primary_key}
            connection.execute(new.on_conflict_do_update(index_elements=keys, set_=rest), missing)
    return len(missing)


def _key(row: Any, keys: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(row[key.name] for key in keys)


def _canonical(row: Any) -> str:
    """A row as text, the same from every database."""
    return json.dumps(dict(row), sort_keys=True, default=_as_text)


def _as_text(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _fingerprint(connection: Connection, table: Table) -> tuple[int, str]:
    """(rows, a hash of all of them): the sum of the rows' own hashes, for databases sort texts in different orders."""
    number, total = 0, 0
    for row in connection.execution_options(yield_per=1000).execute(select(table)).mappings():
        number += 1
        total += int.from_bytes(hashlib.sha256(_canonical(row).encode()).digest())
    return number, f"{total % 2**256:064x}"


def _continue_numbers(target: Engine) -> None:
    """Lets PostgreSQL number new rows after those that came with their numbers."""
    with target.begin() as connection:
        for table in Base.metadata.sorted_tables:
            column = table.autoincrement_column
            if column is None:
                continue
            sequence = connection.scalar(
                text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
            )
            highest = connection.scalar(select(func.max(column)))
            if sequence is not None and highest is not None:
                connection.execute(select(func.setval(sequence, highest)))
