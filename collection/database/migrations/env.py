"""What Alembic runs: our tables on the connection that collection.database.migrate hands over, or its SQL text."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext

from collection.database.models import Base, UtcDateTime


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Writes our type as what it is in the database: a migration must not change when models.py does."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


attributes = context.config.attributes

context.configure(
    connection=attributes.get("connection"),
    dialect_name=attributes.get("dialect_name"),
    target_metadata=Base.metadata,
    literal_binds=context.is_offline_mode(),
    render_item=render_item,
    render_as_batch=True,  # SQLite cannot alter most things in place
    transactional_ddl=True,  # ... but it can undo creating a table
)
with context.begin_transaction():
    context.run_migrations()
