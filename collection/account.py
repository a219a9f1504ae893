"""The account of a load: what was read, what it made, and what was left out for which reason."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from numbers import Number
from typing import Any, Final

NAMED: Final = 3  # places that are told for each reason


class Account:
    """Counts every entry of a load once: str() is "4 rows: 3 pairs, 1 left out (unreadable picture: row 2)"."""

    def __init__(self, entry: str = "row", made: str = "pair") -> None:
        """entry: what is read, and made: what it becomes, as singular nouns."""
        self.entry, self.made = entry, made
        self.kept = 0
        self.left_out: Counter[str] = Counter()
        self._places: dict[str, list[int]] = {}

    @property
    def read(self) -> int:
        """How many entries were read."""
        return self.kept + self.left_out.total()

    def keep(self) -> None:
        """Another entry became what was wanted."""
        self.kept += 1

    def leave_out(self, reason: str, place: int) -> None:
        """The entry at `place`, from 1, did not."""
        self.left_out[reason] += 1
        places = self._places.setdefault(reason, [])
        if len(places) < NAMED:
            places.append(place)

    @property
    def reasons(self) -> str:
        """Why entries were left out, and which: "unreadable picture: row 2"."""
        return "; ".join(f"{reason}: {self._where(reason)}" for reason in sorted(self.left_out))

    def __str__(self) -> str:
        left_out = f", {self.left_out.total()} left out ({self.reasons})" if self.left_out else ""
        return f"{_count(self.read, self.entry)}: {_count(self.kept, self.made)}{left_out}"

    def _where(self, reason: str) -> str:
        places, more = self._places[reason], self.left_out[reason] - len(self._places[reason])
        listed = ", ".join(map(str, places)) + (f" and {more} more" if more else "")
        return f"{self.entry if len(places) == 1 else _plural(self.entry)} {listed}"


def said(value: Any) -> Any:
    """`value`, or None where it says nothing: null, and NaN or NaT, which tables have in place of null."""
    unsaid = isinstance(value, Number | datetime) and value != value
    return None if unsaid else value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    return f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
