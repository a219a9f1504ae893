"""Studies, and count tables in place of the index that counts were made from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_studies")),
    )
    op.create_table(
        "tallies",
        sa.Column("dimension", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.String(length=64), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("variant_a", sa.String(length=64), nullable=False),
        sa.Column("variant_b", sa.String(length=64), nullable=False),
        sa.Column("wins_a", sa.Integer(), nullable=False),
        sa.Column("wins_b", sa.Integer(), nullable=False),
        sa.Column("ties", sa.Integer(), nullable=False),
        sa.Column("both_bad", sa.Integer(), nullable=False),
        sa.Column("left_wins", sa.Integer(), nullable=False),
        sa.CheckConstraint("dimension IN ('participant', 'comparison', 'hour')", name=op.f("ck_tallies_dimension")),
        sa.PrimaryKeyConstraint(
            "dimension",
            "key",
            "study",
            "family",
            "modality",
            "blind",
            "variant_a",
            "variant_b",
            name=op.f("pk_tallies"),
        ),
    )
    with op.batch_alter_table("tallies", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_tallies_study_dimension_family_modality"),
            ["study", "dimension", "family", "modality"],
            unique=False,
        )

    op.create_table(
        "enrolments",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("participant_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("consent_version", sa.String(length=64), nullable=False),
        sa.Column("consented_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("platform", sa.String(length=64), nullable=True),
        sa.Column("worker_hash", sa.String(length=64), nullable=True),
        sa.Column("task_hash", sa.String(length=64), nullable=True),
        sa.Column("session_hash", sa.String(length=64), nullable=True),
        sa.Column("flag", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name=op.f("fk_enrolments_participant_id_participants")
        ),
        sa.ForeignKeyConstraint(["study"], ["studies.name"], name=op.f("fk_enrolments_study_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolments")),
        sa.UniqueConstraint("code", name=op.f("uq_enrolments_code")),
        sa.UniqueConstraint("study", "number", name=op.f("uq_enrolments_study_number")),
        sa.UniqueConstraint("study", "participant_id", name=op.f("uq_enrolments_study_participant_id")),
        sa.UniqueConstraint("study", "worker_hash", name=op.f("uq_enrolments_study_worker_hash")),
    )
    with op.batch_alter_table("enrolments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_enrolments_participant_id"), ["participant_id"], unique=False)

    op.create_table(
        "faults",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("participant_id", sa.String(length=64), nullable=False),
        sa.Column("ballot_id", sa.String(length=64), nullable=True),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id"], ["participants.id"], name=op.f("fk_faults_participant_id_participants")
        ),
        sa.ForeignKeyConstraint(["study"], ["studies.name"], name=op.f("fk_faults_study_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_faults")),
    )
    with op.batch_alter_table("faults", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_faults_participant_id"), ["participant_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_faults_study_participant_id"), ["study", "participant_id"], unique=False)

    op.create_table(
        "study_items",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("comparison_id", sa.String(length=64), nullable=True),
        sa.CheckConstraint("kind IN ('training', 'normal', 'check')", name=op.f("ck_study_items_kind")),
        sa.ForeignKeyConstraint(["study"], ["studies.name"], name=op.f("fk_study_items_study_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_items")),
        sa.UniqueConstraint("study", "number", name=op.f("uq_study_items_study_number")),
    )
    with op.batch_alter_table("study_items", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_items_comparison_id"), ["comparison_id"], unique=False)

    op.create_table(
        "study_pairs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("item_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("first_generation_id", sa.String(length=64), nullable=False),
        sa.Column("second_generation_id", sa.String(length=64), nullable=False),
        sa.Column("right_answer", sa.String(length=64), nullable=True),
        sa.Column("votes", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('training', 'normal', 'check')", name=op.f("ck_study_pairs_kind")),
        sa.CheckConstraint("right_answer IN ('first', 'second')", name=op.f("ck_study_pairs_right_answer")),
        sa.ForeignKeyConstraint(
            ["first_generation_id"], ["generations.id"], name=op.f("fk_study_pairs_first_generation_id_generations")
        ),
        sa.ForeignKeyConstraint(["item_id"], ["study_items.id"], name=op.f("fk_study_pairs_item_id_study_items")),
        sa.ForeignKeyConstraint(
            ["second_generation_id"], ["generations.id"], name=op.f("fk_study_pairs_second_generation_id_generations")
        ),
        sa.ForeignKeyConstraint(["study"], ["studies.name"], name=op.f("fk_study_pairs_study_studies")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_study_pairs")),
        sa.UniqueConstraint("study", "number", name=op.f("uq_study_pairs_study_number")),
    )
    with op.batch_alter_table("study_pairs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_pairs_item_id"), ["item_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_study_pairs_study_kind_votes"), ["study", "kind", "votes"], unique=False)

    op.create_table(
        "assignments",
        sa.Column("ballot_id", sa.String(length=64), nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("enrolment_id", sa.String(length=64), nullable=False),
        sa.Column("pair_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("repeat_of", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('training', 'normal', 'repeat', 'check')", name=op.f("ck_assignments_kind")),
        sa.ForeignKeyConstraint(["ballot_id"], ["ballots.id"], name=op.f("fk_assignments_ballot_id_ballots")),
        sa.ForeignKeyConstraint(
            ["enrolment_id"], ["enrolments.id"], name=op.f("fk_assignments_enrolment_id_enrolments")
        ),
        sa.ForeignKeyConstraint(["pair_id"], ["study_pairs.id"], name=op.f("fk_assignments_pair_id_study_pairs")),
        sa.ForeignKeyConstraint(["repeat_of"], ["ballots.id"], name=op.f("fk_assignments_repeat_of_ballots")),
        sa.ForeignKeyConstraint(["study"], ["studies.name"], name=op.f("fk_assignments_study_studies")),
        sa.PrimaryKeyConstraint("ballot_id", name=op.f("pk_assignments")),
        sa.UniqueConstraint("enrolment_id", "number", name=op.f("uq_assignments_enrolment_id_number")),
    )
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_assignments_pair_id"), ["pair_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_assignments_repeat_of"), ["repeat_of"], unique=False)
        batch_op.create_index(batch_op.f("ix_assignments_study_created_at"), ["study", "created_at"], unique=False)

    with op.batch_alter_table("votes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_votes_counts"))
        batch_op.create_index(batch_op.f("ix_votes_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_votes_study_created_at"), ["study", "created_at"], unique=False)

    _count_votes()


def downgrade() -> None:
    with op.batch_alter_table("votes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_votes_study_created_at"))
        batch_op.drop_index(batch_op.f("ix_votes_created_at"))
        batch_op.create_index(
            batch_op.f("ix_votes_counts"),
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

    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_assignments_study_created_at"))
        batch_op.drop_index(batch_op.f("ix_assignments_repeat_of"))
        batch_op.drop_index(batch_op.f("ix_assignments_pair_id"))

    op.drop_table("assignments")
    with op.batch_alter_table("study_pairs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_pairs_study_kind_votes"))
        batch_op.drop_index(batch_op.f("ix_study_pairs_item_id"))

    op.drop_table("study_pairs")
    with op.batch_alter_table("study_items", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_study_items_comparison_id"))

    op.drop_table("study_items")
    with op.batch_alter_table("faults", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_faults_study_participant_id"))
        batch_op.drop_index(batch_op.f("ix_faults_participant_id"))

    op.drop_table("faults")
    with op.batch_alter_table("enrolments", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_enrolments_participant_id"))

    op.drop_table("enrolments")
    with op.batch_alter_table("tallies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tallies_study_dimension_family_modality"))

    op.drop_table("tallies")
    op.drop_table("studies")


HOUR = {
    "sqlite": "substr(v.created_at, 1, 13)",
    "postgresql": "to_char(v.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24')",
}
STRAIGHT = {  # by code points, as the code that counts later
    "sqlite": "v.left_variant < v.right_variant",
    "postgresql": 'v.left_variant COLLATE "C" < v.right_variant COLLATE "C"',
}


def _count_votes() -> None:
    """Fills the count table from the votes that are there."""
    for dimension, key in {
        "participant": "v.participant_id",
        "comparison": "b.comparison_id",
        "hour": HOUR[op.get_context().dialect.name],
    }.items():
        straight = STRAIGHT[op.get_context().dialect.name]
        op.execute(
            f"""
            INSERT INTO tallies (dimension, "key", study, family, modality, blind, variant_a, variant_b,
                wins_a, wins_b, ties, both_bad, left_wins)
            SELECT '{dimension}', {key}, coalesce(v.study, ''), v.family, v.modality, v.blind,
                CASE WHEN {straight} THEN v.left_variant ELSE v.right_variant END,
                CASE WHEN {straight} THEN v.right_variant ELSE v.left_variant END,
                sum(CASE WHEN v.choice IN ('left', 'right') AND (v.choice = 'left') = ({straight}) THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice IN ('left', 'right') AND (v.choice = 'left') <> ({straight}) THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice = 'tie' THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice = 'both_bad' THEN 1 ELSE 0 END),
                sum(CASE WHEN v.choice = 'left' THEN 1 ELSE 0 END)
            FROM votes AS v JOIN ballots AS b ON b.id = v.ballot_id
            WHERE v.kind = 'normal' AND NOT v.withdrawn AND v.flag IS NULL AND v.choice <> 'skip'
                AND v.left_variant <> v.right_variant
            GROUP BY 2, 3, 4, 5, 6, 7, 8
            """
        )
