"""What was made with a seed or settings of somebody's own is nobody else's to judge, here and wherever it is taken."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

from collection.formats.exporters import EXPORTERS, IMPORTERS
from collection.store import Store
from tests.collection.helpers import VARIANTS, add_comparison, cast, generation


def asked(store: Store) -> str | None:
    """The comparison that a newcomer would be asked about."""
    view = store.draw_ballot("nobody", random.Random(0))
    return store.get_generation(view.left_generation_id).comparison_id if view else None


def test_the_workbench_is_in_nobodys_pool(store: Store) -> None:
    made = [generation(variant, "bench") for variant in VARIANTS]
    store.add_generations(made, workbench=True)
    assert store.is_workbench("bench")
    assert asked(store) is None
    store.add_generations([generation("fourth", "bench")])  # noted again
    assert (store.is_workbench("bench"), asked(store)) == (True, None)
    add_comparison(store, "drawn")
    assert (store.is_workbench("drawn"), asked(store)) == (False, "drawn")
    assert store.verify() == []


def test_three_equal_pictures_are_nothing_to_ask_about(store: Store) -> None:
    first = generation("base", "same")
    store.add_generations([replace(first, variant=variant) for variant in VARIANTS])
    assert asked(store) is None
    store.add_generations([generation("other", "same")])
    view = store.draw_ballot("nobody", random.Random(0))
    assert view is not None
    shown = store.shown(view.left_generation_id, view.right_generation_id)
    assert len({each.media_sha256 for each in shown}) == 2
    assert store.verify() == []


def test_an_export_takes_the_workbench_along(store: Store, tmp_path: Path) -> None:
    person = store.create_participant()
    made = [generation(variant, "bench") for variant in VARIANTS]
    bench = dict(zip(VARIANTS, store.add_generations(made, workbench=True), strict=True))
    cast(store, person, bench["base"], bench["aligned"], "left", blind=False)
    drawn = add_comparison(store, "drawn")
    cast(store, person, drawn["base"], drawn["aligned"], "left")
    EXPORTERS["jsonl"](store.exported_votes(), store.media, tmp_path / "votes")
    with Store(f"sqlite:///{tmp_path / 'copy.db'}", tmp_path / "copy") as copy:
        assert copy.import_votes(partial(IMPORTERS["jsonl"], tmp_path / "votes")).votes == 2
        assert (copy.is_workbench("bench"), copy.is_workbench("drawn")) == (True, False)
        assert asked(copy) == "drawn"
        assert copy.verify() == []
