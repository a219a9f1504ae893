"""A row for each comparison, with how many ballots were issued on it, so that the next ballot is found at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("judgeable", sa.Boolean(), nullable=False),
        sa.Column("ballots", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_comparisons")),
    )
    op.create_index(
        op.f("ix_comparisons_judgeable_family_ballots_id"), "comparisons", ["judgeable", "family", "ballots", "id"]
    )
    op.execute(
        """
        INSERT INTO comparisons (id, family, modality, judgeable, ballots)
        SELECT comparison_id, min(family), min(modality),
            count(DISTINCT variant) > 1 AND min(prompt) = max(prompt) AND min(seed) = max(seed)
                AND min(family) = max(family) AND min(modality) = max(modality)
                AND comparison_id NOT IN (SELECT comparison_id FROM study_items WHERE comparison_id IS NOT NULL),
            (SELECT count(*) FROM ballots WHERE ballots.comparison_id = generations.comparison_id)
        FROM generations
        GROUP BY comparison_id
        """
    )


def downgrade() -> None:
    op.drop_table("comparisons")
