"""The part of the Store that tells somebody about their own votes."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from collection.database import sql
from collection.database.connection import Database
from collection.database.models import BallotRow, VoteRow
from collection.votes.which_count import COUNTS

MOST_LOOKED_AT: Final = 500  # of somebody's newest votes

Verdict = str
"""The id of the generation that was preferred, or a choice that prefers none."""


@dataclass(frozen=True)
class OwnPicks:
    """`picks`: how many of somebody's blind votes stand. Of the newest MOST_LOOKED_AT, `shared`: on how many of their
    pairs others say one thing more often than any other; `agreeing`: how often this person said the same."""

    picks: int
    shared: int
    agreeing: int


class OwnVotes(Database):
    """One person's votes beside everybody else's."""

    def own_picks(self, participant_id: str) -> OwnPicks:
        """How many picks this person has, and how often they agree with the others who saw the same two."""
        theirs = (VoteRow.participant_id == participant_id, VoteRow.blind, VoteRow.withdrawn.is_(False))
        said = (BallotRow.left_generation_id, BallotRow.right_generation_id, VoteRow.choice)
        with self.reading() as session:
            picks = select(func.count(VoteRow.id)).where(*theirs, VoteRow.choice != "skip")
            own = session.execute(
                select(BallotRow.comparison_id, *said)
                .join(VoteRow, VoteRow.ballot_id == BallotRow.id)
                .where(*theirs, VoteRow.choice != "skip")
                .order_by(VoteRow.created_at.desc())
                .limit(MOST_LOOKED_AT)
            ).all()
            others: dict[frozenset[str], Counter[Verdict]] = defaultdict(Counter)
            for comparisons in sql.batched(sorted({row.comparison_id for row in own})):
                rows = session.execute(
                    select(*said, func.count())
                    .join(VoteRow, VoteRow.ballot_id == BallotRow.id)
                    .where(
                        BallotRow.comparison_id.in_(comparisons),
                        VoteRow.participant_id != participant_id,
                        VoteRow.blind,
                        *COUNTS,
                    )
                    .group_by(*said)
                )
                for left, right, choice, number in rows:
                    others[frozenset((left, right))][_verdict(left, right, choice)] += number
            majorities = [
                (_verdict(left, right, choice), _majority(others[frozenset((left, right))]))
                for _, left, right, choice in own
            ]
            shared = [(mine, most) for mine, most in majorities if most is not None]
            return OwnPicks(session.scalar(picks) or 0, len(shared), sum(mine == most for mine, most in shared))


def _verdict(left: str, right: str, choice: str) -> Verdict:
    return {"left": left, "right": right}.get(choice, choice)


def _majority(verdicts: Counter[Verdict]) -> Verdict | None:
    """What was said most often; None where nothing was, or two things equally often."""
    first, second = [*verdicts.most_common(2), ("", 0), ("", 0)][:2]
    return first[0] if first[1] > second[1] else None
