"""Votes for tests of the statistics, written down as who said what about which prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from collection.statistics.counts import OUTCOMES, Votes

Said = tuple[str, str, str, str, str]  # person, prompt, a, b, one of: a b tie bad


def votes_of(said: Iterable[Said]) -> Votes:
    """The count tables of these votes, all of them from the left where a won."""
    tables: tuple[Counter[tuple[str, ...]], ...] = (Counter(), Counter())
    columns = {"a": ("wins_a", "left_wins"), "b": ("wins_b",), "tie": ("ties",), "bad": ("both_bad",)}
    for person, prompt, a, b, choice in said:
        for table, cluster in zip(tables, (person, prompt), strict=True):
            table.update((cluster, a, b, column) for column in columns[choice])
    rows = [
        [(*key, *(table[*key, name] for name in OUTCOMES)) for key in sorted({entry[:3] for entry in table})]
        for table in tables
    ]
    return Votes.of(*rows)


def alone(a: str, b: str, choices: str, prompts: int = 1, people: int = 0) -> list[Said]:
    """One vote for each of the letters a, b, t and n (both bad), by as many people, in turn on so many prompts."""
    names = {"a": "a", "b": "b", "t": "tie", "n": "bad"}
    people = people or len(choices)
    return [
        (f"person {place % people}", f"prompt {place % prompts}", a, b, names[letter])
        for place, letter in enumerate(choices)
    ]
