"""The migrations make exactly the tables of models.py, here and for PostgreSQL, and can be undone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, Engine, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from collection.database.engine import for_writing, open_engine
from collection.database.migrate import alembic_config, upgrade
from collection.database.models import Base
from collection.errors import InputError
from collection.statistics.summary import summarise
from collection.types import AdapterRecord
from tests.collection.helpers import add_comparison, cast, open_store


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(URL.create("sqlite", database=str(tmp_path / "npo.db")))
    upgrade(opened)
    yield opened
    opened.dispose()


def test_the_newest_migration_leaves_exactly_the_tables_of_the_models(engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_check_constraints_of_the_models_are_in_the_migrations_too(engine: Engine) -> None:
    for table in Base.metadata.sorted_tables:
        expected = {check.name for check in table.constraints if str(check.name).startswith("ck_")}
        assert {check["name"] for check in inspect(engine).get_check_constraints(table.name)} == expected


def test_migrations_can_be_undone_and_done_again(engine: Engine) -> None:
    with for_writing(engine).begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    upgrade(engine)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}


def test_votes_survive_the_way_to_studies_and_back_and_are_counted_on_arrival(tmp_path: Path) -> None:
    """A database of the first schema with votes: upgraded, downgraded, upgraded again, nothing of it is lost."""
    with open_store(tmp_path) as store:
        ids, person = add_comparison(store), store.create_participant()
        for left, right, choice in (
            ("base", "aligned", "left"),
            ("aligned", "base", "tie"),
            ("base", "aligned", "skip"),
        ):
            cast(store, person, ids[left], ids[right], choice)  # type: ignore[arg-type]
        kept, counts = list(store.exported_votes()), store.vote_counts()
        for _ in range(2):
            with for_writing(store._engine).begin() as connection:
                command.downgrade(alembic_config(connection), "0001")
                assert "tallies" not in inspect(connection).get_table_names()
                assert connection.scalar(text("SELECT count(*) FROM votes")) == 3
            upgrade(store._engine)
    with open_store(tmp_path) as store:
        unnamed = [replace(vote.vote, participant_id="") for vote in store.exported_votes()]
        assert unnamed == [replace(vote.vote, participant_id="") for vote in kept], "the names follow a new key"
        assert store.vote_counts() == counts
        assert store.verify() == []


def test_adapters_from_before_clips_are_of_pictures_and_survive_the_way_back(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        old = store.register_adapter(AdapterRecord("emoji", "negative", "old", "a.safetensors", "1" * 64))
        for _ in range(2):
            with for_writing(store._engine).begin() as connection:
                command.downgrade(alembic_config(connection), "0002")
                assert connection.scalar(text("SELECT name FROM adapters")) == "old"
            upgrade(store._engine)
        assert store.adapters() == store.adapters(modality="image") == [old]
        new = store.register_adapter(AdapterRecord("emoji", "negative", "new", "b", "2" * 64, modality="video"))
        assert store.adapters(modality="video") == [new]


def test_adapters_from_before_promotions_are_in_use_as_they_were(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for name in ("first", "second"):
            store.register_adapter(AdapterRecord("emoji", "negative", name, name, "1" * 64))
        for _ in range(2):
            with for_writing(store._engine).begin() as connection:
                command.downgrade(alembic_config(connection), "0003")
                assert connection.scalar(text("SELECT count(*) FROM adapters")) == 2
            upgrade(store._engine)
        assert [adapter.name for adapter in store.promoted("emoji", "negative")] == ["second", "first"]


def test_ballots_of_an_import_that_were_about_no_comparison_are_put_right_once(tmp_path: Path) -> None:
    """What imports of other people's files left behind: a comparison of its own for every ballot, and counts by it."""
    with open_store(tmp_path) as store:
        person = store.create_participant()
        for comparison in ("c1", "c2"):
            ids = add_comparison(store, comparison, prompt=f"prompt {comparison}")
            for choice in ("left", "tie"):
                cast(store, person, ids["base"], ids["aligned"], choice)  # type: ignore[arg-type]
        counts = store.vote_counts_by_prompt()
        with for_writing(store._engine).begin() as connection:
            command.downgrade(alembic_config(connection), "0005")
            for number, ballot in enumerate(connection.scalars(text("SELECT id FROM ballots")).all()):
                connection.execute(
                    text("UPDATE ballots SET comparison_id = :pair WHERE id = :id"),
                    {"pair": f"p{number}", "id": ballot},
                )
            count_by_comparison(connection)
            connection.execute(text("UPDATE comparisons SET ballots = 0"))
            zeros = {"prompt": "prompt\0 c1\0", "comparison": "c1"}
            connection.execute(text("UPDATE generations SET prompt = :prompt WHERE comparison_id = :comparison"), zeros)
        upgrade(store._engine)
        assert store.verify() == []
        assert store.vote_counts_by_prompt() == counts
        assert summarise(store).totals.comparisons == 2


def count_by_comparison(connection: Connection) -> None:
    """The count table as it was when those ballots had been imported."""
    connection.execute(text("DELETE FROM tallies WHERE dimension = 'comparison'"))
    connection.execute(
        text(
            "INSERT INTO tallies SELECT 'comparison', comparison_id, '', family, modality, votes.blind, left_variant, "
            "right_variant, 0, 0, 0, 0, 0 FROM votes JOIN ballots ON ballots.id = votes.ballot_id"
        )
    )
    for column, choice in (("ties", "tie"), ("wins_b", "left"), ("left_wins", "left")):
        connection.execute(
            text(
                f"UPDATE tallies SET {column} = 1, variant_a = 'aligned', variant_b = 'base' "
                "WHERE dimension = 'comparison' AND key IN (SELECT comparison_id FROM ballots JOIN votes "
                f"ON votes.ballot_id = ballots.id WHERE choice = '{choice}')"
            )
        )


def test_upgrading_twice_changes_nothing(engine: Engine) -> None:
    with engine.connect() as connection:
        before = connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all()
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).all() == before


def test_a_database_from_a_newer_version_is_refused(engine: Engine) -> None:
    with for_writing(engine).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match="written by a newer version"):
        upgrade(engine)


def test_the_migrations_read_as_postgresql() -> None:
    config = alembic_config()
    config.attributes["dialect_name"] = "postgresql"
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    sql = config.output_buffer.getvalue()
    assert all(f"CREATE TABLE {name} (" in sql for name in Base.metadata.tables)
    assert "TIMESTAMP WITH TIME ZONE" in sql
    assert "latents BYTEA" in sql


def test_the_models_compile_for_postgresql() -> None:
    for table in Base.metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=postgresql.dialect()))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=postgresql.dialect()))
