"""Comparisons made with somebody's own seed or settings are marked, and nobody is asked about equal pictures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("comparisons", sa.Column("workbench", sa.Boolean(), server_default=sa.false(), nullable=False))
    pictures = "SELECT count(DISTINCT media_sha256) FROM generations WHERE comparison_id = comparisons.id"
    op.execute(f"UPDATE comparisons SET judgeable = false WHERE judgeable AND ({pictures}) < 2")


def downgrade() -> None:
    op.drop_column("comparisons", "workbench")
