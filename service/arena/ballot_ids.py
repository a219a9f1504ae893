"""What a ballot is called outside: an id that says by its first word where it is answered, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.errors import RefusedError

PANELS: Final = "panels"  # a comparison of Compare, answered with a letter
PAIR: Final = "pair"  # a ballot of the pool
OFFER: Final = "offer"  # one that was shown to somebody who is not written down yet, see pool.py
STUDY: Final = "study"  # a ballot of a study
KINDS: Final = (PANELS, PAIR, OFFER, STUDY)


@dataclass(frozen=True)
class BallotId:
    """`kind` is one of KINDS, `key` what its service knows it by."""

    kind: str
    key: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.key}"


def read_ballot_id(text: object) -> BallotId:
    """The id in what somebody sent; RefusedError for what was never one."""
    kind, _, key = text.partition("-") if isinstance(text, str) else ("", "", "")
    if kind not in KINDS or not key:
        raise RefusedError(
            f"The ballot {text!r} was not issued to this participant; ask for a new ballot.", "unknown_ballot"
        )
    return BallotId(kind, key)
