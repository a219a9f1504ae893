"""The part of the Store that says what the votes say. Every method here only reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from datetime import datetime
from itertools import chain
from typing import Any, Final, cast

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from collection.database import sql
from collection.database.connection import Database
from collection.database.models import AdapterRow, GenerationRow, TallyRow, VoteRow, unpack_latents
from collection.statistics.counts import Votes
from collection.types import ROLES, PreferencePairs, PreferenceRecord, Totals, VoteCount, WhichVotes
from collection.votes.contenders import TRAITS, Contender, traits_of

ROWS_AT_ONCE: Final = 1000


class Results(Database):
    """Counts, pairs for training, and what the statistics need."""

    def preference_pairs(
        self, family: str, modality: str = "image", blind_only: bool = True, study: str | None = None
    ) -> PreferencePairs:
        """The decided votes as pairs of latents, oldest first, and how many others were left out for which reason.

        study None means all of them. `dropped` has every one of sql.DROP_REASONS, zero or not.
        """
        scope: dict[str, Any] = {"family": family, "modality": modality, "study": study}
        reason = sql.drop_reason(blind_only)
        left, right = sql.LeftRow, sql.RightRow
        columns = (
            *(VoteRow.id, VoteRow.choice, VoteRow.participant_id, left.prompt),
            *(left.id, left.variant, left.latents, left.latents_shape),
            *(right.id, right.variant, right.latents, right.latents_shape),
        )
        with self.reading() as session:
            counted = session.execute(sql.preference_votes(reason, func.count(), **scope).group_by(reason))
            counts = {row[0]: row[1] for row in counted}
            usable = sql.preference_votes(*columns, **scope).where(reason.is_(None))
            rows = session.execute(usable.order_by(VoteRow.created_at, VoteRow.id))
            pairs = [_preference(*row) for row in rows]
        return PreferencePairs(pairs, {name: counts.get(name, 0) for name in sql.DROP_REASONS})

    def vote_counts(
        self,
        family: str | None = None,
        modality: str | None = None,
        blind_only: bool = True,
        study: WhichVotes = None,
    ) -> list[VoteCount]:
        """Outcomes per pair of variants (variant_a < variant_b), whatever the number of votes from one small table."""
        statement = sql.outcomes("hour", family=family, modality=modality, blind_only=blind_only, study=study)
        with self.reading() as session:
            return [VoteCount(*row[:6]) for row in session.execute(statement)]

    def votes_for_statistics(
        self,
        family: str | None = None,
        modality: str | None = None,
        study: WhichVotes = None,
    ) -> tuple[Votes, dict[str, Votes]]:
        """The blind ones per contender, by person and by prompt: what an interval over both needs. All of them, and
        those of each category of studies' prompts ("" for what no study asked about)."""
        scope: dict[str, Any] = {"family": family, "modality": modality, "study": study, "of": "contender"}
        per = {"participant": TallyRow.key, "comparison": sql.prompt_of(TallyRow.key)}
        tables: list[dict[str, list[Any]]] = []
        with self.reading() as session:
            for dimension, cluster in per.items():
                rows: dict[str, list[Any]] = defaultdict(list)
                statement = sql.outcomes(cast(Any, dimension), TallyRow.category, cluster, **scope).order_by(None)
                for category, *row in _stream(session, statement):
                    rows[category].append(row)
                tables.append(rows)
        together = Votes.of(*(list(chain.from_iterable(rows.values())) for rows in tables))
        return together, {category: Votes.of(*(rows[category] for rows in tables)) for category in sorted(tables[0])}

    def contenders(self, ids: Collection[str]) -> dict[str, Contender]:
        """What these contenders are, by the first picture that was made of each."""
        made = GenerationRow
        columns = [getattr(made, name) for name in (*TRAITS, "aligned_id", "negative_id", "created_at")]
        found = {}
        with self.reading() as session:
            names = dict(session.execute(select(AdapterRow.id, AdapterRow.name)).tuples().all())
            for identity in ids:
                first = select(*columns).where(made.contender == identity).order_by(made.created_at).limit(1)
                row = dict(session.execute(first).mappings().one())
                traits = traits_of(row)
                used = {str(role): row[f"{role}_id"] for role in ROLES if f"{role}_sha256" in traits}
                versions = {role: names.get(adapter, adapter) for role, adapter in used.items()}
                found[identity] = Contender(identity, row["variant"], traits, versions, row["created_at"])
        return found

    def vote_counts_by_comparison(
        self, family: str | None = None, modality: str | None = None, study: WhichVotes = None
    ) -> dict[str, list[VoteCount]]:
        """The same per comparison (one prompt and seed), blind votes only: what `statistics.agreement` needs."""
        return self._grouped(sql.outcomes("comparison", TallyRow.key, family=family, modality=modality, study=study))

    def vote_counts_by_prompt(
        self, family: str | None = None, modality: str | None = None, study: WhichVotes = None
    ) -> dict[str, list[VoteCount]]:
        """The same per prompt."""
        prompts = (
            select(GenerationRow.comparison_id, func.min(GenerationRow.prompt).label("prompt"))
            .group_by(GenerationRow.comparison_id)
            .subquery()
        )
        rows = sql.outcomes("comparison", prompts.c.prompt, family=family, modality=modality, study=study)
        return self._grouped(rows.join(prompts, prompts.c.comparison_id == TallyRow.key))

    def modalities_voted_on(self, family: str | None = None, study: WhichVotes = None) -> list[str]:
        """Of what there are votes that count, in alphabetical order: image, video."""
        with self.reading() as session:
            return list(session.scalars(sql.modalities(family, study)))

    def votes_by_hour(
        self, family: str | None = None, modality: str | None = None, study: WhichVotes = None
    ) -> dict[str, int]:
        """ "2026-12-31 18" (UTC) -> how many of the blind votes that count were given in that hour."""
        rows = self._grouped(sql.outcomes("hour", TallyRow.key, family=family, modality=modality, study=study))
        return {hour: sum(count.total for count in counts) for hour, counts in rows.items()}

    def prompts_of(self, comparison_ids: Collection[str]) -> dict[str, str]:
        """comparison -> its prompt."""
        with self.reading() as session:
            rows = session.execute(
                select(GenerationRow.comparison_id, GenerationRow.prompt)
                .where(GenerationRow.comparison_id.in_(comparison_ids))
                .distinct()
            )
            return dict(rows.tuples().all())

    def last_vote_at(self) -> datetime | None:
        """When the newest vote was given, None before the first; one short query."""
        with self.reading() as session:
            return session.scalar(select(func.max(VoteRow.created_at)))

    def totals(self, family: str | None = None, modality: str | None = None, study: WhichVotes = None) -> Totals:
        """Votes that count, blind or not (skips say nothing and do not), who cast them, on how many comparisons."""
        last = select(func.max(VoteRow.created_at)).where(*sql.of_study(VoteRow.study, study))
        with self.reading() as session:
            counts = session.execute(sql.totals(family, modality, study)).one()
            return Totals(*counts, last_vote_at=session.scalar(last) if counts[0] else None)

    def _grouped(self, statement: Select[Any]) -> dict[str, list[VoteCount]]:
        """The rows (key, *outcomes) of `statement` by their key."""
        counts: dict[str, list[VoteCount]] = defaultdict(list)
        with self.reading() as session:
            for row in _stream(session, statement):
                counts[row[0]].append(VoteCount(*row[1:7]))
        return dict(counts)


def _stream(session: Session, statement: Select[Any]) -> Iterator[Any]:
    """The rows of `statement`, fetched many at once: one by one takes longer than the query."""
    return chain.from_iterable(session.connection().execute(statement).partitions(ROWS_AT_ONCE))


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
