"""python -m collection copy-to: from one database to the other kind, whole, checked, resumable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, event, update

from collection.__main__ import main
from collection.database.models import FaultRow, ParticipantRow, TallyRow
from collection.errors import InputError
from collection.maintenance.copying import copy_tables
from collection.statistics.summary import summarise
from collection.store import Store
from collection.types import AdapterRecord
from tests.collection.helpers import add_comparison, cast, open_store
from tests.collection.study_helpers import make_study, take_part


@pytest.fixture
def filled(store: Store) -> Store:
    """Something in every table."""
    make_study(store)
    person, _ = take_part(store, lambda ballot: "left")
    store.report_fault("pilot", person, "a picture did not load")
    ids = add_comparison(store, prompt="zwei Äpfel, 'süß' & \N{RED APPLE}")
    cast(store, store.create_participant(), ids["base"], ids["aligned"], "tie")
    store.register_adapter(AdapterRecord("emoji", "negative", "new", "a.safetensors", "1" * 64))
    return store


@pytest.fixture
def other(store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty database of the other kind, with the same media."""
    if store.url.get_backend_name() == "sqlite":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path / 'other.db'}"
    with Store(url, tmp_path / "data") as opened:
        yield opened


def test_the_copy_says_the_same_and_goes_on_as_the_original_would(filled: Store, other: Store) -> None:
    copies = filled.copy_to(other)
    assert {copy.table: copy.rows for copy in copies}["assignments"] > 0
    assert all(copy.written == copy.rows for copy in copies)
    assert list(map(str, other.exported_votes())) == list(map(str, filled.exported_votes()))
    assert summarise(other) == summarise(filled)
    assert other.study_progress() == filled.study_progress()
    assert other.adapters() == filled.adapters()
    assert other.verify() == []
    take_part(other, lambda ballot: "right")
    other.register_adapter(AdapterRecord("emoji", "negative", "newer", "b.safetensors", "2" * 64))
    assert other.promoted("emoji", "negative")[0].name == "newer"
    assert other.verify() == []


def test_a_second_copy_brings_only_what_changed(filled: Store, other: Store) -> None:
    filled.copy_to(other)
    vote = next(filled.exported_votes(study="pilot"))
    filled.answer(vote.ballot.id, filled.participant_of_code(vote.vote.participant_id), "tie")
    copies = {copy.table: copy.written for copy in filled.copy_to(other)}
    assert copies["votes"] == 1
    assert copies["generations"] == copies["ballots"] == copies["participants"] == 0
    assert other.verify() == []


def test_a_copy_that_broke_off_goes_on(filled: Store, other: Store) -> None:
    class PowerCutError(Exception):
        pass

    def cut_at_votes(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO votes"):
            raise PowerCutError

    event.listen(other._engine, "before_cursor_execute", cut_at_votes)
    with pytest.raises(PowerCutError):
        copy_tables(filled._engine, other._engine)
    event.remove(other._engine, "before_cursor_execute", cut_at_votes)
    copies = {copy.table: (copy.written, copy.rows) for copy in filled.copy_to(other)}
    assert copies["generations"][0] == 0
    assert copies["votes"][0] == copies["votes"][1] > 0
    assert other.totals() == filled.totals()


def test_a_target_with_votes_of_its_own_is_refused(filled: Store, other: Store) -> None:
    other.create_participant()
    with pytest.raises(InputError, match="1 more than there are to copy"):
        filled.copy_to(other)
    with pytest.raises(InputError, match="cannot be copied to itself"):
        filled.copy_to(filled)


def test_what_differs_at_the_target_is_put_right(filled: Store, other: Store) -> None:
    filled.copy_to(other)
    with other.writing() as session:
        session.execute(update(TallyRow).values(ties=TallyRow.ties + 1))
        session.execute(update(ParticipantRow).values(flag="changed"))
        session.execute(delete(FaultRow))
    copies = {copy.table: copy.written for copy in filled.copy_to(other)}
    assert copies["faults"] == 1
    assert copies["participants"] == 2
    assert other.verify() == []


def test_the_command_tells_what_it_did_and_takes_media_along(
    tmp_path: Path, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_store(tmp_path) as store:
        ids = add_comparison(store)
        cast(store, store.create_participant(), ids["base"], ids["aligned"], "left")
        here = ["--database-url", str(store.url), "--data-dir", str(tmp_path / "data")]
        there = ["--database-url", postgres_url, "--data-dir", str(tmp_path / "new")]
        assert main(["copy-to", postgres_url, *here, "--to-data-dir", str(tmp_path / "new")]) == 0
        assert main(["verify", *there]) == 0
        assert main(["copy-to", "mysql://somewhere", *here]) == 2
    shown = capsys.readouterr().out
    assert "votes: 1 rows, 1 written, sha256" in shown
    assert "are sound" in shown
