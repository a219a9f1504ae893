"""The numbers that all statistics begin with: how the votes came out, once by person and once by prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np

from collection.types import VoteCount

OUTCOMES: Final = ("wins_a", "wins_b", "ties", "both_bad", "left_wins")


@dataclass(frozen=True, eq=False)
class Cells:
    """Outcomes of all votes, a row for each cluster (a person, or a prompt) and pair of contenders, in columns.

    cluster: (N,) int, from 0; first, second: (N,) int, places in Votes.contenders; outcomes: (N, 5) float64, OUTCOMES.
    """

    cluster: np.ndarray
    first: np.ndarray
    second: np.ndarray
    outcomes: np.ndarray

    def where(self, rows: np.ndarray) -> Cells:
        """Those of the (N,) bool `rows`."""
        return Cells(self.cluster[rows], self.first[rows], self.second[rows], self.outcomes[rows])

    def of_clusters(self, values: np.ndarray) -> np.ndarray:
        """(clusters,) sums of the (N,) `values`, of the clusters that occur."""
        return np.bincount(self._places, values)

    @cached_property
    def _places(self) -> np.ndarray:
        return np.unique(self.cluster, return_inverse=True)[1]

    @property
    def votes(self) -> np.ndarray:
        """(N,) votes of each row."""
        return self.outcomes[:, :4].sum(1)

    @property
    def equal(self) -> np.ndarray:
        """(N,) ties, "both bad" among them."""
        return self.outcomes[:, 2] + self.outcomes[:, 3]

    @property
    def score(self) -> np.ndarray:
        """(N,) wins of `first`, a tie being half of one."""
        return self.outcomes[:, 0] + self.equal / 2


@dataclass(frozen=True, eq=False)
class Votes:
    """The same votes counted twice; contenders in the order of their code points. On each pair one of them is
    always the first."""

    contenders: tuple[str, ...]
    by_person: Cells
    by_prompt: Cells

    @classmethod
    def of(cls, by_person: Iterable[Sequence[Any]], by_prompt: Iterable[Sequence[Any]]) -> Votes:
        """From rows (person or prompt, contender_a, contender_b, *OUTCOMES); both must count the same votes."""
        tables = [_columns(rows) for rows in (by_person, by_prompt)]
        names = sorted({str(name) for _, a, b, _ in tables for name in (*np.unique(a), *np.unique(b))})
        return cls(tuple(names), *(_cells(np.array(names, str), *table) for table in tables))

    @classmethod
    def of_counts(cls, counts: Iterable[VoteCount]) -> Votes:
        """As if one person had cast all these votes on one prompt."""
        rows = [("", *count, 0) for count in counts]
        return cls.of(rows, rows)

    def renamed(self, names: Mapping[str, str]) -> Votes:
        """With contenders called as `names` says; those that get one name are counted as one."""
        kept = sorted({names[name] for name in self.contenders})
        places = np.array([kept.index(names[name]) for name in self.contenders], int)
        tables = (
            Cells(table.cluster, places[table.first], places[table.second], table.outcomes)
            for table in (self.by_person, self.by_prompt)
        )
        return Votes(tuple(kept), *tables)

    def where(self, person_rows: np.ndarray, prompt_rows: np.ndarray) -> Votes:
        """The votes in these rows of both tables."""
        return Votes(self.contenders, self.by_person.where(person_rows), self.by_prompt.where(prompt_rows))

    def pairs(self) -> list[tuple[tuple[int, int], Votes]]:
        """((first, second), the votes on them) of each pair that was voted on, in order."""
        found = []
        tables = [_by_pair(table, len(self.contenders)) for table in (self.by_person, self.by_prompt)]
        for pair in sorted(tables[0].keys() | tables[1].keys()):
            found.append((divmod(pair, len(self.contenders)), Votes(self.contenders, *(each[pair] for each in tables))))
        return found

    def totals(self) -> np.ndarray:
        """(5,) OUTCOMES of all."""
        return np.asarray(self.by_person.outcomes.sum(0))


def _by_pair(table: Cells, contenders: int) -> dict[int, Cells]:
    codes = table.first * contenders + table.second
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    rows = zip(found, starts, ends, strict=True)
    return {int(code): table.where(order[start:end]) for code, start, end in rows}


def _columns(rows: Iterable[Sequence[Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clusters, contenders a and b, and (N, 5) outcomes; rows without a vote are left out."""
    rows = iter(rows)
    values = list(first := next(rows, ()))
    values += chain.from_iterable(rows)  # one flat list: a million small tuples would keep the collector busy
    width = len(first) or 3 + len(OUTCOMES)
    clusters, a, b, *outcomes = (values[column::width] for column in range(width))
    numbers = np.array(outcomes, float).T.reshape(-1, len(OUTCOMES))
    voted = numbers[:, :4].any(1)
    return np.array(clusters, str)[voted], np.array(a, str)[voted], np.array(b, str)[voted], numbers[voted]


def _cells(names: np.ndarray, clusters: np.ndarray, a: np.ndarray, b: np.ndarray, outcomes: np.ndarray) -> Cells:
    return Cells(
        np.unique(clusters, return_inverse=True)[1], np.searchsorted(names, a), np.searchsorted(names, b), outcomes
    )
