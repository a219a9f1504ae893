"""Unlike things are never counted as one: what a contender is, and what the summary makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from alembic import command

from collection.__main__ import main
from collection.database.engine import for_writing
from collection.database.migrate import alembic_config, upgrade
from collection.statistics.report import as_json, as_text
from collection.statistics.summary import summarise
from collection.store import Store
from collection.votes.contenders import OF_VARIANT, USES, contender_id, traits_of
from npo_core.variants import VARIANTS, Mix
from tests.collection.helpers import add_comparison, cast, generation


def identity(variant: str, **changes: Any) -> str:
    return contender_id(traits_of(vars(generation(variant, **changes))))


def vote_on(store: Store, name: str, people: list[str], choices: str, **changes: Any) -> None:
    """Everybody's choice between base and aligned_npo on one comparison: n for the latter, b for the former."""
    ids = add_comparison(store, name, prompt=f"prompt of {name}", **changes)
    for person, choice in zip(people, choices, strict=True):
        cast(store, person, ids["base"], ids["aligned_npo"], "right" if choice == "n" else "left")


def test_what_a_variant_depends_on_is_what_its_weights_are_mixed_from() -> None:
    assert set(USES) == set(VARIANTS)
    for name, variant in VARIANTS.items():
        sides, others = variant.mixes(0.5, 0.25), variant.mixes(0.75, 0.125)
        mixes = {mix for mix in sides if mix != Mix()}
        uses = set()
        uses |= {"aligned_sha256"} if any(mix.aligned for mix in mixes) else set()
        uses |= {"negative_sha256"} if any(mix.negative for mix in mixes) else set()
        uses |= {"alpha"} if any(mix.aligned == 0.5 for mix in sides) and sides != others else set()
        uses |= {"beta"} if any(mix.negative == 0.25 for mix in sides) and sides != others else set()
        assert USES[name] == uses, name


def test_a_contender_is_a_variant_with_its_versions_settings_family_and_modality() -> None:
    usual = identity("aligned_npo")
    assert identity("aligned_npo", seed=8, prompt="another", comparison_id="c9") == usual
    for change in (
        {"negative_sha256": "d" * 64},
        {"aligned_sha256": "c" * 64},
        {"alpha": 0.25},
        {"beta": 0.25},
        {"steps": 7},
        {"guidance_scale": 2.0},
        {"family": "sd15"},
        {"modality": "video"},
        {"negative_prompt": "ugly"},
    ):
        assert identity("aligned_npo", **change) != usual, change
    for name in OF_VARIANT:
        value: Any = "d" * 64 if name.endswith("sha256") else 0.125
        assert identity("base", **{name: value}) == identity("base")
    assert identity("aligned_npo", alpha=1) == identity("aligned_npo", alpha=1.0)


def test_versions_and_settings_are_compared_apart_and_pooled_only_where_that_is_asked_for(store: Store) -> None:
    people = [store.create_participant() for _ in range(4)]
    vote_on(store, "old", people, "nbbb", negative_id="first", negative_sha256="1" * 64)
    vote_on(store, "new", people, "nnnb", negative_id="second", negative_sha256="2" * 64)
    vote_on(store, "slow", people, "bbbb", negative_id="second", negative_sha256="2" * 64, steps=50)

    summary = summarise(store)
    rates = {rate.contender_a: (rate.variant_a, rate.variant_b, rate.rate) for rate in summary.win_rates}
    assert sorted(rates.values()) == [
        ("aligned_npo", "base", 0.0),
        ("aligned_npo", "base", 0.25),
        ("aligned_npo", "base", 0.75),
    ]
    assert len({rating.group for rating in summary.ratings}) == 2, "other steps met nobody of these"
    assert len(summary.contenders) == 5
    assert {contender.name for contender in summary.contenders if contender.variant == "base"} == {
        "steps 20",
        "steps 50",
    }

    (together,) = summarise(store, pool=["versions", "settings"]).win_rates
    assert (together.variant_a, together.rate, together.votes) == ("aligned_npo", 4 / 12, 12)
    assert len(summarise(store, pool=["settings"]).win_rates) == 2


def test_progress_is_told_version_by_version_against_the_same_opponent(store: Store) -> None:
    people = [store.create_participant() for _ in range(4)]
    for number, choices in enumerate(("nbbb", "nnbb", "nnnb"), start=1):
        vote_on(store, f"c{number}", people, choices, negative_id=f"v{number}", negative_sha256=str(number) * 64)
    summary = summarise(store)
    names = {one.first_made_at: one.name for one in summary.contenders if one.variant == "aligned_npo"}
    assert [names[made] for made in sorted(names)] == ["negative v1", "negative v2", "negative v3"]
    assert [(step.version, step.variant, step.against, step.rate) for step in summary.progress] == [
        ("v1", "aligned_npo", "base", 0.25),
        ("v2", "aligned_npo", "base", 0.5),
        ("v3", "aligned_npo", "base", 0.75),
    ]
    assert "Version by version" in as_text(summary)
    assert json.loads(json.dumps(as_json(summary)))["progress"][2]["version"] == "v3"
    assert summarise(store, pool=["versions"]).progress == []


def test_families_and_modalities_are_apart_without_being_asked_for(store: Store) -> None:
    people = [store.create_participant() for _ in range(3)]
    for number, (family, modality) in enumerate((("emoji", "image"), ("emoji", "video"), ("sd15", "image"))):
        vote_on(store, f"c{number}", people, "nnn" if number else "bbb", family=family, modality=modality)
    summary = summarise(store)
    assert sorted(rate.rate for rate in summary.win_rates) == [0.0, 1.0, 1.0]
    assert len({rating.group for rating in summary.ratings}) == 3
    assert "aligned_npo (emoji, image) against base (emoji, image)" in as_text(summary)


def test_the_command_line_counts_together_what_it_is_told_to(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [store.create_participant() for _ in range(3)]
    for number in (1, 2):
        vote_on(store, f"c{number}", people, "nnb", steps=10 * number)
    url = store.url.render_as_string(hide_password=False)
    where = ["--database-url", url, "--data-dir", str(tmp_path)]
    assert main(["stats", "--json", *where]) == 0
    apart = json.loads(capsys.readouterr().out)
    assert main(["stats", "--json", *where, "--pool", "settings"]) == 0
    together = json.loads(capsys.readouterr().out)
    assert (len(apart["win_rates"]), len(together["win_rates"])) == (2, 1)
    assert (apart["pooled"], together["pooled"]) == ([], ["settings"])


def test_the_count_table_is_right_about_contenders(store: Store) -> None:
    people = [store.create_participant() for _ in range(3)]
    vote_on(store, "c1", people, "nnb")
    vote_on(store, "c2", people, "nbb", steps=50)
    assert store.verify() == []


def test_votes_of_an_older_database_get_their_contenders_and_none_is_lost(store: Store) -> None:
    people = [store.create_participant() for _ in range(3)]
    vote_on(store, "c1", people, "nnb", negative_sha256=None, negative_id=None)
    vote_on(store, "c2", people, "nbb", steps=50)
    before = as_json(summarise(store))
    with for_writing(store._engine).begin() as connection:
        command.downgrade(alembic_config(connection), "0006")
    upgrade(store._engine)
    assert store.verify() == []
    assert as_json(summarise(store)) == before
