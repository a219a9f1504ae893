"""Which adapter was in use when. Those that were there before were put to use as they were registered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "promotions",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("adapter_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rolled_back_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('aligned', 'negative')", name=op.f("ck_promotions_role")),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_promotions_adapter_id_adapters")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_family_role_modality"), "promotions", ["family", "role", "modality"])
    op.execute(
        "INSERT INTO promotions (family, role, modality, adapter_id, created_at) "
        "SELECT family, role, modality, id, created_at FROM adapters ORDER BY created_at, id"
    )


def downgrade() -> None:
    op.drop_table("promotions")
