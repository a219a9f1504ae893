"""Ballots that came from other people's files are about the comparison of their pictures; erased people are remembered
by keyed hashes; a study keeps what its first picture was made with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TEXTS = (
    ("generations", ("prompt", "negative_prompt", "family", "variant")),
    ("votes", ("family", "left_variant", "right_variant", "flag")),
    ("comparisons", ("family",)),
    ("participants", ("flag",)),
)
UNKNOWN = "NOT EXISTS (SELECT 1 FROM generations WHERE generations.comparison_id = {column})"


def upgrade() -> None:
    op.create_table(
        "person_keys",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_person_keys")),
    )
    op.create_table(
        "tombstones",
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("person", name=op.f("pk_tombstones")),
    )
    op.add_column("studies", sa.Column("began_with", sa.JSON(), nullable=True))
    _move_counts()
    op.execute(
        "UPDATE ballots SET comparison_id = "
        "(SELECT comparison_id FROM generations WHERE generations.id = ballots.left_generation_id) "
        f"WHERE {UNKNOWN.format(column='ballots.comparison_id')}"
    )
    op.execute(
        "UPDATE comparisons SET ballots = (SELECT count(*) FROM ballots WHERE ballots.comparison_id = comparisons.id)"
    )
    op.execute(  # made elsewhere: whether they began with the same noise is not known
        "UPDATE comparisons SET judgeable = false "
        "WHERE id IN (SELECT comparison_id FROM generations WHERE generations.seed < 0)"
    )
    if not context.is_offline_mode() and op.get_bind().dialect.name == "sqlite":
        _drop_zero_characters()


def _move_counts() -> None:
    """The votes on a comparison that no picture belongs to count for the one that the left picture belongs to."""
    outcomes = ("wins_a", "wins_b", "ties", "both_bad", "left_wins")
    keys = ("study", "family", "modality", "blind", "variant_a", "variant_b")
    op.execute(
        f"""
        INSERT INTO tallies (dimension, key, {", ".join(keys)}, {", ".join(outcomes)})
        SELECT 'comparison', moved.new, {", ".join(keys)}, {", ".join(f"sum({name})" for name in outcomes)}
        FROM tallies JOIN (
            SELECT DISTINCT ballots.comparison_id AS old, made.comparison_id AS new
            FROM ballots JOIN generations AS made ON made.id = ballots.left_generation_id
            WHERE {UNKNOWN.format(column="ballots.comparison_id")}
        ) AS moved ON moved.old = tallies.key
        WHERE dimension = 'comparison'
        GROUP BY moved.new, {", ".join(keys)}
        ON CONFLICT (dimension, key, {", ".join(keys)})
        DO UPDATE SET {", ".join(f"{name} = tallies.{name} + excluded.{name}" for name in outcomes)}
        """
    )
    op.execute(f"DELETE FROM tallies WHERE dimension = 'comparison' AND {UNKNOWN.format(column='tallies.key')}")


def _drop_zero_characters() -> None:
    """SQLite keeps U+0000 in a text and PostgreSQL does not, so that such a database could not be copied there."""
    connection = op.get_bind()
    for table, columns in TEXTS:
        for column in columns:
            found = sa.text(f"SELECT id, {column} FROM {table} WHERE instr({column}, char(0)) > 0")
            for identity, value in connection.execute(found).all():  # SQLite's own functions stop at such a character
                repaired = {"id": identity, "value": value.replace("\0", "")}
                connection.execute(sa.text(f"UPDATE {table} SET {column} = :value WHERE id = :id"), repaired)


def downgrade() -> None:
    op.drop_column("studies", "began_with")
    op.drop_table("tombstones")
    op.drop_table("person_keys")
