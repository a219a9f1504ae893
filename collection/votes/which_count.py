"""Which votes count, said once: for the count table, for exports and for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement

from collection.database.models import VoteRow
from collection.types import ExportedVote


class Reason(NamedTuple):
    """Why a vote says nothing: the word for it, the condition for the database, and the same for a vote in hand."""

    name: str
    in_sql: ColumnElement[bool]
    of: Callable[[ExportedVote], bool]


LEFT_OUT: Final = (
    Reason("flagged", VoteRow.flag.is_not(None), lambda vote: vote.vote.flag is not None),
    Reason("repeat_or_check", VoteRow.kind != "normal", lambda vote: vote.ballot.kind != "normal"),
    Reason("skip", VoteRow.choice == "skip", lambda vote: vote.vote.choice == "skip"),
    Reason(
        "same_variant",
        VoteRow.left_variant == VoteRow.right_variant,
        lambda vote: vote.left.variant == vote.right.variant,
    ),
)
"""In the order in which they are told. What was taken back is not even handed out."""

COUNTS: Final = (VoteRow.withdrawn.is_(False), *(~reason.in_sql for reason in LEFT_OUT))
"""All of these hold for a vote that counts."""


def counts(vote: ExportedVote) -> bool:
    """Whether a vote that stands says something."""
    return not any(reason.of(vote) for reason in LEFT_OUT)
