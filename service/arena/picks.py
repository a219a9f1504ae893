"""From "A is best, C is worst" to pairwise votes, and from votes back to panels. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from collection.types import BallotView, Choice
from service.errors import InputError

LETTERS = "ABCDE"


@dataclass(frozen=True)
class Pick:
    """What a person said about the panels of one comparison, by their letters."""

    best: str | None = None
    worst: str | None = None
    no_difference: bool = False


def panel_pairs(count: int) -> list[tuple[int, int]]:
    """The (left, right) panel numbers of every ballot of a comparison: for three, (A, B), (A, C), (B, C)."""
    return list(combinations(range(count), 2))


def check_pick(pick: Pick, count: int) -> None:
    """Raises InputError unless `pick` makes sense for `count` panels."""
    letters = LETTERS[:count]
    shown = ", ".join(letters)
    for what, letter in (("best", pick.best), ("worst", pick.worst)):
        if letter is not None and (len(letter) != 1 or letter not in letters):
            raise InputError(f"The {what} panel is {letter!r}; choose from {shown}.")
    if pick.no_difference:
        if pick.best or pick.worst:
            raise InputError("Both a panel and 'no difference' were chosen; choose one of the two.")
    elif pick.best is None:
        raise InputError(f"No best panel was chosen; choose from {shown}, or say 'no difference'.")
    elif pick.best == pick.worst:
        raise InputError(f"Panel {pick.best} was chosen as best and as worst; choose another worst, or none.")


def pairwise_choices(pick: Pick, count: int) -> list[Choice]:
    """One choice for each of `panel_pairs(count)`.

    The best wins all its pairs, the worst loses all its pairs; about two panels that are neither nothing was said
    (skip). "No difference" ties them all. Raises InputError for a pick that makes no sense.
    """
    check_pick(pick, count)
    return [_choice(LETTERS[left], LETTERS[right], pick) for left, right in panel_pairs(count)]


def _choice(left: str, right: str, pick: Pick) -> Choice:
    if pick.no_difference:
        return "tie"
    if left == pick.best or right == pick.worst:
        return "left"
    if right == pick.best or left == pick.worst:
        return "right"
    return "skip"


def panel_order(ballots: Iterable[BallotView]) -> list[str]:
    """The generation ids in panel order: A stands left on all its ballots, B on all but one, and so on."""
    times_left: Counter[str] = Counter()
    for ballot in ballots:
        times_left[ballot.left_generation_id] += 1
        times_left[ballot.right_generation_id] += 0
    return sorted(times_left, key=lambda generation_id: -times_left[generation_id])


def ballots_in_order(ballots: Sequence[BallotView], order: Sequence[str]) -> list[BallotView]:
    """The ballots of `panel_pairs`, in that order, from ballots in any order."""
    by_pair = {(ballot.left_generation_id, ballot.right_generation_id): ballot for ballot in ballots}
    return [by_pair[order[left], order[right]] for left, right in panel_pairs(len(order))]
