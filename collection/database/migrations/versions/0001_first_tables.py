"""The first tables: participants, generations, ballots, votes, training runs, adapters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "generations",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("comparison_id", sa.String(length=64), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("negative_prompt", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("variant", sa.String(length=64), nullable=False),
        sa.Column("aligned_id", sa.Text(), nullable=True),
        sa.Column("aligned_sha256", sa.String(length=64), nullable=True),
        sa.Column("negative_id", sa.Text(), nullable=True),
        sa.Column("negative_sha256", sa.String(length=64), nullable=True),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("beta", sa.Double(), nullable=False),
        sa.Column("guidance_scale", sa.Double(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        sa.Column("scheduler", sa.String(length=64), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("frames", sa.Integer(), nullable=False),
        sa.Column("fps", sa.Double(), nullable=True),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("elapsed_s", sa.Double(), nullable=False),
        sa.Column("media_type", sa.String(length=64), nullable=False),
        sa.Column("media_sha256", sa.String(length=64), nullable=False),
        sa.Column("latents", sa.LargeBinary(), nullable=True),
        sa.Column("latents_shape", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
    )
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_generations_comparison_id"), ["comparison_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_generations_media_sha256"), ["media_sha256"], unique=False)

    op.create_table(
        "participants",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("flag", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_participants")),
    )
    op.create_table(
        "training_runs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("vote_ids", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=64), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('aligned', 'negative')", name=op.f("ck_training_runs_role")),
        sa.CheckConstraint("status IN ('running', 'finished', 'failed')", name=op.f("ck_training_runs_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_runs")),
    )
    op.create_table(
        "adapters",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("training_run_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('aligned', 'negative')", name=op.f("ck_adapters_role")),
        sa.ForeignKeyConstraint(
            ["training_run_id"], ["training_runs.id"], name=op.f("fk_adapters_training_run_id_training_runs")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapters")),
    )
    with op.batch_alter_table("adapters", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_adapters_family_role_created_at"), ["family", "role", "created_at"], unique=False
        )

    op.create_table(
        "ballots",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("left_generation_id", sa.String(length=64), nullable=False),
        sa.Column("right_generation_id", sa.String(length=64), nullable=False),
        sa.Column("participant_id", sa.String(length=64), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=True),
        sa.Column("comparison_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('normal', 'repeat', 'check')", name=op.f("ck_ballots_kind")),
        sa.CheckConstraint("left_generation_id <> right_generation_id", name=op.f("ck_ballots_two_generations")),
        sa.ForeignKeyConstraint(
            ["left_generation_id"], ["generations.id"], name=op.f("fk_ballots_left_generation_id_generations")
        ),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name=op.f("fk_ballots_participant_id_participants")
        ),
        sa.ForeignKeyConstraint(
            ["right_generation_id"], ["generations.id"], name=op.f("fk_ballots_right_generation_id_generations")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ballots")),
    )
    with op.batch_alter_table("ballots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ballots_comparison_id"), ["comparison_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_ballots_left_generation_id"), ["left_generation_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_ballots_participant_id_comparison_id"), ["participant_id", "comparison_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_ballots_right_generation_id"), ["right_generation_id"], unique=False)

    op.create_table(
        "votes",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("ballot_id", sa.String(length=64), nullable=False),
        sa.Column("participant_id", sa.String(length=64), nullable=False),
        sa.Column("choice", sa.String(length=64), nullable=False),
        sa.Column("first_choice", sa.String(length=64), nullable=False),
        sa.Column("response_time_s", sa.Double(), nullable=True),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("flag", sa.Text(), nullable=True),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("left_variant", sa.String(length=64), nullable=False),
        sa.Column("right_variant", sa.String(length=64), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("choice IN ('left', 'right', 'tie', 'both_bad', 'skip')", name=op.f("ck_votes_choice")),
        sa.CheckConstraint(
            "first_choice IN ('left', 'right', 'tie', 'both_bad', 'skip')", name=op.f("ck_votes_first_choice")
        ),
        sa.ForeignKeyConstraint(["ballot_id"], ["ballots.id"], name=op.f("fk_votes_ballot_id_ballots")),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name=op.f("fk_votes_participant_id_participants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_votes")),
        sa.UniqueConstraint("ballot_id", "participant_id", name=op.f("uq_votes_ballot_id_participant_id")),
    )
    with op.batch_alter_table("votes", schema=None) as batch_op:
        batch_op.create_index(
            "ix_votes_counts",
            [
                "kind",
                "withdrawn",
                "family",
                "modality",
                "blind",
                "study",
                "left_variant",
                "right_variant",
                "choice",
                "participant_id",
                "flag",
            ],
            unique=False,
        )
        batch_op.create_index(batch_op.f("ix_votes_participant_id"), ["participant_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("votes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_votes_participant_id"))
        batch_op.drop_index("ix_votes_counts")

    op.drop_table("votes")
    with op.batch_alter_table("ballots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ballots_right_generation_id"))
        batch_op.drop_index(batch_op.f("ix_ballots_participant_id_comparison_id"))
        batch_op.drop_index(batch_op.f("ix_ballots_left_generation_id"))
        batch_op.drop_index(batch_op.f("ix_ballots_comparison_id"))

    op.drop_table("ballots")
    with op.batch_alter_table("adapters", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_adapters_family_role_created_at"))

    op.drop_table("adapters")
    op.drop_table("training_runs")
    op.drop_table("participants")
    with op.batch_alter_table("generations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_generations_media_sha256"))
        batch_op.drop_index(batch_op.f("ix_generations_comparison_id"))

    op.drop_table("generations")
