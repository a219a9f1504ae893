"""A new negative against an older one in a blind study."""

from __future__ import annotations

from pathlib import Path

import pytest

from collection.studies.study_config import StudyPlan
from service.errors import InputError
from service.services import Services
from service.versus import fill, main, make_versus, names_of, older_than
from tests.service.helpers import register


def test_both_versions_draw_every_item_from_the_same_noise(services: Services, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a red apple\na cat\n")
    plan = StudyPlan(
        "duel", names_of(), str(tmp_path / "prompts.txt"), family="tiny", check_share=0.1, generation={"steps": 2}
    )
    new = register(services, tmp_path, "negative", 11, "new")
    store = services.store
    assert older_than(store, new) == "tiny-negative"
    make_versus(store, plan)
    make_versus(store, plan)  # again changes nothing
    items = len(store.items_to_fill("duel"))
    assert fill(store, services.generator, "duel", {"old": "tiny-negative", "new": str(new.id)}) == items
    assert fill(store, services.generator, "duel", {"old": "tiny-negative", "new": str(new.id)}) == 0
    (progress,) = store.study_progress()
    assert progress.pairs == 2
    with store.reading() as session:
        rows = (
            session.connection()
            .exec_driver_sql("SELECT comparison_id, seed, variant, negative_id, media_sha256 FROM generations")
            .all()
        )
    pairs: dict[str, list[tuple[object, ...]]] = {}
    for comparison_id, *row in rows:
        pairs.setdefault(comparison_id, []).append(tuple(row))
    duels = [sorted(pair, key=lambda row: str(row[1])) for pair in pairs.values() if "degraded" not in str(pair)]
    assert len(duels) == 2
    for newer, older in duels:
        assert newer[0] == older[0]
        assert (newer[1], newer[2], older[1], older[2]) == (names_of()[1], new.id, names_of()[0], "tiny-negative")
        assert newer[3] != older[3]
    second = register(services, tmp_path, "negative", 12, "second")
    assert older_than(store, second) == new.id


def test_a_name_that_is_taken_by_another_study_is_refused(services: Services, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\n")
    other = StudyPlan("pilot", ("base", "aligned"), str(tmp_path / "prompts.txt"), family="tiny")
    make_versus(services.store, other)
    with pytest.raises(InputError, match="of something else"):
        make_versus(services.store, StudyPlan("pilot", names_of(), other.prompts, family="tiny"))


@pytest.mark.usefixtures("own_family")
def test_the_command_makes_the_study_of_a_family_of_ones_own(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("a red apple\na cat\n")
    new = register(services, tmp_path, "negative", 11, "new")
    where = ["--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path)]
    what = ["--new", str(new.id), "--prompts", str(tmp_path / "prompts.txt")]
    assert main(["duel", *what, *where]) == 0
    said = capsys.readouterr()
    assert "items made: new against Shipped with the model." in said.out
    assert services.store.items_to_fill("duel") == []
    (progress,) = services.store.study_progress()
    assert progress.pairs == 2


def test_an_unknown_adapter_gets_one_sentence(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path)]
    assert main(["duel", "--new", "gone", *where]) == 2
    assert "There is no adapter 'gone'" in capsys.readouterr().err
