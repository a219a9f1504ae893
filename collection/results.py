"""The part of the Store that says what the votes say. Every method here only reads."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import numpy as np
from sqlalchemy import func

from collection import queries
from collection.database import Database
from collection.models import VoteRow, unpack_latents
from collection.records import Judgement, PreferencePairs, PreferenceRecord, Totals, Verdict, VoteCount
from collection.statistics import fold_outcomes


class Results(Database):
    """Counts, pairs for training, and what the statistics need."""

    def preference_pairs(
        self, family: str, modality: str = "image", blind_only: bool = True, study: str | None = None
    ) -> PreferencePairs:
        """The decided votes as pairs of latents, oldest first, and how many others were left out for which reason.

        study None means all of them. `dropped` has every one of queries.DROP_REASONS, zero or not.
        """
        scope: dict[str, Any] = {"family": family, "modality": modality, "study": study}
        reason = queries.drop_reason(blind_only)
        left, right = queries.LeftRow, queries.RightRow
        columns = (
            *(VoteRow.id, VoteRow.choice, VoteRow.participant_id, left.prompt),
            *(left.id, left.variant, left.latents, left.latents_shape),
            *(right.id, right.variant, right.latents, right.latents_shape),
        )
        with self.reading() as session:
            counted = session.execute(queries.preference_votes(reason, func.count(), **scope).group_by(reason))
            counts = {row[0]: row[1] for row in counted}
            usable = queries.preference_votes(*columns, **scope).where(reason.is_(None))
            rows = session.execute(usable.order_by(VoteRow.created_at, VoteRow.id))
            pairs = [_preference(*row) for row in rows]
        return PreferencePairs(pairs, {name: counts.get(name, 0) for name in queries.DROP_REASONS})

    def vote_counts(
        self,
        family: str | None = None,
        modality: str | None = None,
        blind_only: bool = True,
        study: str | None = None,
    ) -> list[VoteCount]:
        """Outcomes per pair of variants (variant_a < variant_b), from one GROUP BY whatever the number of votes."""
        statement = queries.outcomes(family=family, modality=modality, blind_only=blind_only, study=study)
        with self.reading() as session:
            return fold_outcomes([tuple(row) for row in session.execute(statement)])

    def vote_counts_by_participant(
        self,
        family: str | None = None,
        modality: str | None = None,
        blind_only: bool = True,
        study: str | None = None,
    ) -> dict[str, list[VoteCount]]:
        """The same per participant: what an interval that resamples people needs."""
        statement = queries.outcomes(
            VoteRow.participant_id, family=family, modality=modality, blind_only=blind_only, study=study
        )
        rows_of: dict[str, list[Any]] = defaultdict(list)
        with self.reading() as session:
            for participant_id, *row in session.execute(statement):
                rows_of[participant_id].append(row)
        return {participant_id: fold_outcomes(rows) for participant_id, rows in rows_of.items()}

    def side_counts(
        self, family: str | None = None, modality: str | None = None, blind_only: bool = True
    ) -> tuple[int, int]:
        """(left wins, right wins): what `statistics.position_bias` needs."""
        wins = {"left": 0, "right": 0}
        with self.reading() as session:
            rows = session.execute(queries.outcomes(family=family, modality=modality, blind_only=blind_only))
            for _left, _right, choice, count in rows:
                if choice in wins:
                    wins[choice] += count
        return wins["left"], wins["right"]

    def judgements(self, family: str | None = None, modality: str | None = None) -> list[Judgement]:
        """Every blind verdict on a pair of pictures, by whom: what `statistics.agreement` needs."""
        with self.reading() as session:
            rows = session.execute(queries.judgements(family, modality))
            return [Judgement(item, person, cast(Verdict, verdict)) for item, person, verdict in rows]

    def totals(self) -> Totals:
        """Votes that stand (skips say nothing and do not count), who cast them, on how many comparisons."""
        with self.reading() as session:
            return Totals(*session.execute(queries.totals()).one())


def _preference(
    vote_id: str,
    choice: str,
    participant_id: str,
    prompt: str,
    left_id: str,
    left_variant: str,
    left_latents: bytes,
    left_shape: str,
    right_id: str,
    right_variant: str,
    right_latents: bytes,
    right_shape: str,
) -> PreferenceRecord:
    left = (cast(np.ndarray, unpack_latents(left_latents, left_shape)), left_variant, left_id)
    right = (cast(np.ndarray, unpack_latents(right_latents, right_shape)), right_variant, right_id)
    preferred, rejected = (left, right) if choice == "left" else (right, left)
    return PreferenceRecord(
        vote_id,
        prompt,
        preferred_latents=preferred[0],
        rejected_latents=rejected[0],
        preferred_variant=preferred[1],
        rejected_variant=rejected[1],
        participant_id=participant_id,
        preferred_id=preferred[2],
        rejected_id=rejected[2],
    )
