"""Whether a row fits its columns, on either database, before one of them says so in its own words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, Integer, String

from collection.database.models import Base
from collection.errors import InputError
from collection.texts import unwritable


def check_fits(what: str, row: Base) -> None:
    """Raises InputError, which calls the row `what`, for a text that is too long or cannot be kept, and for a number
    that is none or too large."""
    for column in row.__table__.columns:
        value = getattr(row, column.key)
        reason = _reason(value, column.type)
        if reason is not None:
            raise InputError(f"The {column.key} of {what} {reason}; export it again, or take it out of the file.")


def _reason(value: Any, kind: Any) -> str | None:
    """Why `value` does not fit a column of this kind, None where it does."""
    if isinstance(value, Mapping):
        return next((reason for pair in value.items() for part in pair if (reason := _reason(part, None))), None)
    if isinstance(value, str):
        fault = unwritable(value)
        length = getattr(kind, "length", None) if isinstance(kind, String) else None
        if fault is None and length is not None and len(value) > length:
            fault = f"{len(value)} characters, and {length} can be kept"
        return f"has {fault}" if fault else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and isinstance(kind, Integer):
        bits = 64 if isinstance(kind, BigInteger) else 32
        return None if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else f"is {value}, which is too large"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}, which is no number"
    return None
