"""What SQLite and PostgreSQL say differently, said once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class HourOf(FunctionElement[str]):
    """The hour of a moment, in UTC: "2026-12-31 18"."""

    type = String()
    inherit_cache = True


class InCodePoints(FunctionElement[str]):
    """A text that sorts by its code points, as Python sorts it, and not as the language of the server would."""

    type = String()
    inherit_cache = True


@compiles(HourOf, "sqlite")
def _hour_in_sqlite(element: HourOf, compiler: Any, **options: Any) -> str:
    return f"substr({compiler.process(element.clauses, **options)}, 1, 13)"


@compiles(HourOf, "postgresql")
def _hour_in_postgresql(element: HourOf, compiler: Any, **options: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24')"


@compiles(InCodePoints, "sqlite")
def _sorted_by_sqlite(element: InCodePoints, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(InCodePoints, "postgresql")
def _sorted_by_postgresql(element: InCodePoints, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


def insert_or_change(dialect: str, table: Any) -> Any:
    """An INSERT into `table` that can say what to do where the row is there already."""
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)
