"""Moves everything from one database to another, whatever the two are: `python -m collection copy-to URL`.

First every table is looked at (`refuse_strangers`): a target with rows that are not to be copied is refused before
anything is written. Then one transaction at the target (`copy_tables`), so that a copy is whole or not there: table by
table, in an order in which nothing refers to what is not there yet, in batches that are compared before they are
written. Only rows that are missing or different travel, so a copy made again brings over what changed meanwhile. Before
it is committed both sides are read again: the same number of rows and the same hash of all of them, or it is said which
table differs.
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
from collection.database.faults import clear_errors
from collection.database.models import Base, TombstoneRow
from collection.errors import InputError

BATCH_VALUES: Final = 8_000  # key values in a statement: every database bounds its parameters

Progress = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True)
class TableCopy:
    """What became of a table: rows there are, rows that had to travel, the hash that both sides have."""

    table: str
    rows: int
    written: int
    sha256: str


def refuse_strangers(source: Engine, target: Engine) -> None:
    """Raises InputError where the target has rows that the source has not. (Erased people it may know more of.)"""
    with for_reading(source).begin() as reading, for_reading(target).begin() as checking:
        ours, theirs = _Side(reading), _Side(checking)
        for table in Base.metadata.sorted_tables:
            if table is TombstoneRow.__table__:
                continue
            keys = list(table.primary_key.columns)
            strangers = sum(len(some) - len(ours.rows_like(table, some)) for some in theirs.all_rows(table, *keys))
            if strangers:
                raise InputError(
                    f"The target has {strangers} rows in {table.name} that are not here, so nothing was copied; give "
                    "an empty database, or one that an earlier copy of this database was made to."
                )


def copy_tables(source: Engine, target: Engine, progress: Progress = lambda line: None) -> list[TableCopy]:
    """Brings the rows of `source`, one moment of it, to `target`, which has the same schema; tells of each table.

    All of it or nothing. Raises InputError, and leaves the target as it was, where the two differ in the end, and where
    one of them fails: it says which.
    """
    with (
        for_reading(source).begin() as reading,
        clear_errors(target.url, opening=True),  # what fails here is the target, but for what `_Side` reads
        for_writing(target).begin() as writing,
    ):
        ours, theirs = _Side(reading), _Side(writing)
        copies = [_copy_table(ours, theirs, table, progress) for table in Base.metadata.sorted_tables]
        if target.dialect.name == "postgresql":
            _continue_numbers(writing)
    return copies


class _Side:
    """One of the two databases; when it fails, the sentence names it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._url = connection.engine.url

    def all_rows(self, table: Table, *columns: Any) -> Iterator[list[Row]]:
        """The rows (or some columns of them) in the order of their keys, so many at once that their keys fit into a
        statement."""
        keys = list(table.primary_key.columns)
        size = max(1, min(1000, BATCH_VALUES // len(keys)))
        with clear_errors(self._url, opening=True):
            rows = select(*(columns or [table])).order_by(*keys).execution_options(yield_per=size)
            found = self.connection.execute(rows)
            for some in found.mappings().partitions(size):
                yield [dict(row) for row in some]

    def rows_like(self, table: Table, rows: Sequence[Row]) -> dict[tuple[Any, ...], Row]:
        """Those of this side with the keys of `rows`, by their keys."""
        keys = list(table.primary_key.columns)
        these = tuple_(*keys).in_([_key(row, table) for row in rows])
        with clear_errors(self._url, opening=True):
            found = self.connection.execute(select(table).where(these)).mappings()
            return {_key(row, table): dict(row) for row in found}

    def fingerprint(self, table: Table) -> tuple[int, str]:
        """(rows, a hash of all of them): the sum of the rows' own hashes, for databases sort texts in different
        orders."""
        number, total = 0, 0
        for some in self.all_rows(table):
            for row in some:
                number += 1
                total += int.from_bytes(hashlib.sha256(_canonical(row).encode()).digest())
        return number, f"{total % 2**256:064x}"


def _copy_table(ours: _Side, theirs: _Side, table: Table, progress: Progress) -> TableCopy:
    written = sum(_copy_batch(theirs, table, rows) for rows in ours.all_rows(table))
    here, there = ours.fingerprint(table), theirs.fingerprint(table)
    if here != there:
        raise InputError(
            f"The copy of {table.name} differs: {here[0]} rows with the hash {here[1][:16]} here, {there[0]} with "
            f"{there[1][:16]} there; nothing was copied. Run `python -m collection verify` on both."
        )
    progress(f"{table.name}: {here[0]} rows, {written} written, sha256 {here[1][:16]}")
    return TableCopy(table.name, here[0], written, here[1])


def _copy_batch(theirs: _Side, table: Table, rows: Sequence[Row]) -> int:
    """Writes those of `rows` that the target has not, or has otherwise; returns how many."""
    there = {key: _canonical(row) for key, row in theirs.rows_like(table, rows).items()}
    missing = [row for row in rows if there.get(_key(row, table)) != _canonical(row)]
    if missing:
        new = insert_or_change(theirs.connection.dialect.name, table)
        keys = list(table.primary_key.columns)
        rest = {column.name: new.excluded[column.name] for column in table.columns if not column.primary_key}
        theirs.connection.execute(new.on_conflict_do_update(index_elements=keys, set_=rest), missing)
    return len(missing)


def _key(row: Any, table: Table) -> tuple[Any, ...]:
    return tuple(row[key.name] for key in table.primary_key.columns)


def _canonical(row: Row) -> str:
    """A row as text, the same from every database."""
    return json.dumps(row, sort_keys=True, default=_as_text)


def _as_text(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _continue_numbers(connection: Connection) -> None:
    """Lets PostgreSQL number new rows after those that came with their numbers."""
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
