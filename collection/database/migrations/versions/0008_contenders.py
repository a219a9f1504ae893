"""Votes are counted by contender (a variant as it was made) and by category of prompt, not by variant alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

from collection.votes.contenders import NUMBERS, TRAITS, contender_id, traits_of

revision = "0008"
down_revision = "0006"
branch_labels = None
depends_on = None

OUTCOMES = ("wins_a", "wins_b", "ties", "both_bad", "left_wins")
OLD_KEYS = ("dimension", "key", "study", "family", "modality", "blind", "variant_a", "variant_b")
NEW_KEYS = (*OLD_KEYS[:6], "category", "variant_a", "variant_b", "contender_a", "contender_b")
HOUR = {
    "sqlite": "substr(v.created_at, 1, 13)",
    "postgresql": "to_char(v.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24')",
}
STRAIGHT = {  # by code points, as the code that counts later
    "sqlite": "v.left_variant < v.right_variant",
    "postgresql": 'v.left_variant COLLATE "C" < v.right_variant COLLATE "C"',
}


def upgrade() -> None:
    op.add_column("generations", sa.Column("contender", sa.String(length=64), server_default="", nullable=False))
    if not context.is_offline_mode():
        _name_contenders()
    op.create_index(op.f("ix_generations_contender_created_at"), "generations", ["contender", "created_at"])
    op.drop_table("tallies")
    _create_tallies(NEW_KEYS)
    _count_votes(NEW_KEYS)


def downgrade() -> None:
    op.drop_table("tallies")
    _create_tallies(OLD_KEYS)
    _count_votes(OLD_KEYS)
    op.drop_index(op.f("ix_generations_contender_created_at"), "generations")
    op.drop_column("generations", "contender")


def _name_contenders() -> None:
    made = sa.table("generations", *(sa.column(name, sa.Double() if name in NUMBERS else None) for name in TRAITS))
    named = sa.table("generations", *(sa.column(name) for name in (*TRAITS, "contender")))
    connection = op.get_bind()
    for row in connection.execute(sa.select(*(made.c[name] for name in TRAITS)).distinct()).mappings().all():
        alike = [named.c[name].is_not_distinct_from(row[name]) for name in TRAITS]
        identity = contender_id(traits_of(dict(row)))
        connection.execute(sa.update(named).where(*alike).values(contender=identity))


def _create_tallies(keys: tuple[str, ...]) -> None:
    op.create_table(
        "tallies",
        *(sa.Column(name, sa.Boolean() if name == "blind" else sa.String(length=64), nullable=False) for name in keys),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in OUTCOMES),
        sa.CheckConstraint("dimension IN ('participant', 'comparison', 'hour')", name=op.f("ck_tallies_dimension")),
        sa.PrimaryKeyConstraint(*keys, name=op.f("pk_tallies")),
    )
    op.create_index(
        op.f("ix_tallies_study_dimension_family_modality"), "tallies", ["study", "dimension", "family", "modality"]
    )


def _count_votes(keys: tuple[str, ...]) -> None:
    """Fills the count table from the votes that are there."""
    dialect = op.get_context().dialect.name
    straight = STRAIGHT[dialect]
    category = "(SELECT i.category FROM study_items AS i WHERE i.comparison_id = b.comparison_id LIMIT 1)"
    for dimension, key in {
        "participant": "v.participant_id",
        "comparison": "b.comparison_id",
        "hour": HOUR[dialect],
    }.items():
        values = {
            "dimension": f"'{dimension}'",
            "key": key,
            "study": "coalesce(v.study, '')",
            **{name: f"v.{name}" for name in ("family", "modality", "blind")},
            "category": "''" if dimension == "hour" else f"coalesce({category}, '')",
            "variant_a": f"CASE WHEN {straight} THEN v.left_variant ELSE v.right_variant END",
            "variant_b": f"CASE WHEN {straight} THEN v.right_variant ELSE v.left_variant END",
            "contender_a": f"CASE WHEN {straight} THEN l.contender ELSE r.contender END",
            "contender_b": f"CASE WHEN {straight} THEN r.contender ELSE l.contender END",
        }
        op.execute(
            f"""
            INSERT INTO tallies ({", ".join(f'"{name}"' for name in keys)}, {", ".join(OUTCOMES)})
            SELECT {", ".join(values[name] for name in keys)},
                sum(CASE WHEN v.choice IN ('left', 'right') AND (v.choice = 'left') = ({straight}) THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice IN ('left', 'right') AND (v.choice = 'left') <> ({straight}) THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice = 'tie' THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice = 'both_bad' THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice = 'left' THEN 1 ELSE 0 END)
            FROM votes AS v JOIN ballots AS b ON b.id = v.ballot_id
                JOIN generations AS l ON l.id = b.left_generation_id
                JOIN generations AS r ON r.id = b.right_generation_id
            WHERE v.kind = 'normal' AND NOT v.withdrawn AND v.flag IS NULL AND v.choice <> 'skip'
                AND v.left_variant <> v.right_variant
            GROUP BY {", ".join(str(place) for place in range(2, len(keys) + 1))}
            """
        )
