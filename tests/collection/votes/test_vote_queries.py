"""Counts, training pairs and totals as the Store gives them."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import text

from collection.database import sql
from collection.database.models import TallyRow
from collection.errors import InputError
from collection.store import Store
from collection.types import TALLY_DIMENSIONS, AdapterRecord, TrainingRun, VoteCount
from tests.collection.helpers import add_comparison, cast, generation


def test_counts_do_not_depend_on_the_side(store: Store) -> None:
    ids = add_comparison(store)
    for left, right, choice in [
        ("base", "aligned", "left"),
        ("aligned", "base", "right"),
        ("aligned", "base", "left"),
        ("base", "aligned", "tie"),
        ("base", "aligned", "both_bad"),
        ("base", "aligned", "skip"),
    ]:
        cast(store, store.create_participant(), ids[left], ids[right], choice)  # type: ignore[arg-type]
    assert store.vote_counts() == [VoteCount("aligned", "base", wins_a=1, wins_b=2, ties=1, both_bad=1)]
    wins_a, wins_b, _, _, left_wins = store.votes_for_statistics()[0].totals()
    assert (left_wins, wins_a + wins_b - left_wins) == (2, 1)


def test_counts_by_person_and_by_prompt_are_of_the_same_votes(store: Store) -> None:
    """Two comparisons of one prompt are one prompt."""
    pictures = [add_comparison(store, name) for name in ("c1", "c2")]
    people = [store.create_participant() for _ in range(2)]
    for person, choice in zip(people, ("left", "right"), strict=True):
        for ids in pictures:
            cast(store, person, ids["base"], ids["aligned"], choice)  # type: ignore[arg-type]
    votes, _ = store.votes_for_statistics()
    assert sorted(one.variant for one in store.contenders(votes.contenders).values()) == ["aligned", "base"]
    assert sorted(votes.by_person.outcomes.tolist()) == [[0, 2, 0, 0, 2], [2, 0, 0, 0, 0]]
    assert votes.by_prompt.outcomes.tolist() == [[2, 2, 0, 0, 2]]
    assert len(votes.by_prompt.first) == 1


def test_counts_keep_to_what_was_asked_for(store: Store) -> None:
    person, ids = store.create_participant(), add_comparison(store)
    other = add_comparison(store, "c2", family="sd15")
    cast(store, person, ids["base"], ids["aligned"], "left")
    cast(store, person, ids["base"], ids["aligned_npo"], "left", blind=False)
    cast(store, person, other["base"], other["aligned"], "left", study="pilot")
    assert sum(count.total for count in store.vote_counts()) == 2
    assert sum(count.total for count in store.vote_counts(blind_only=False)) == 3
    assert sum(count.total for count in store.vote_counts(family="emoji")) == 1
    assert sum(count.total for count in store.vote_counts(modality="video")) == 0
    assert sum(count.total for count in store.vote_counts(study="pilot")) == 1


def test_what_was_voted_on_is_told_by_modality(store: Store) -> None:
    assert store.modalities_voted_on() == []
    person, other = store.create_participant(), store.create_participant()
    clip, picture = add_comparison(store, modality="video"), add_comparison(store, "c2", family="sd15")
    add_comparison(store, "c3")
    cast(store, person, clip["base"], clip["aligned"], "left")
    cast(store, other, picture["base"], picture["aligned"], "left")
    assert store.modalities_voted_on() == ["image", "video"]
    assert store.modalities_voted_on("emoji") == ["video"]
    store.flag_participant(person, "a robot")
    assert store.modalities_voted_on("emoji") == []


def test_repeats_checks_and_flagged_people_do_not_count(store: Store) -> None:
    person, ids = store.create_participant(), add_comparison(store)
    cast(store, person, ids["base"], ids["aligned"], "left")
    cast(store, person, ids["base"], ids["aligned"], "left", kind="repeat")
    cast(store, person, ids["base"], ids["aligned"], "left", kind="check")
    assert store.vote_counts() == [VoteCount("aligned", "base", 0, 1, 0, 0)]
    assert store.flag_participant(person, "votes faster than anyone can see") == 3
    cast(store, person, ids["aligned"], ids["aligned_npo"], "left")
    assert store.vote_counts() == []
    assert store.flag_participant(person, None) == 4
    assert len(store.vote_counts()) == 2


def test_counting_reads_the_count_table_and_no_vote(store: Store) -> None:
    statements = [sql.totals("emoji", None, None)]
    statements += [sql.outcomes(dimension, TallyRow.key, family="emoji") for dimension in TALLY_DIMENSIONS]
    for statement in statements:
        written = str(statement.compile(dialect=store._engine.dialect, compile_kwargs={"literal_binds": True}))
        with store.reading() as session:
            explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[store.url.get_backend_name()]
            plan = [str(row[-1]) for row in session.execute(text(f"{explain} {written}"))]
        assert any("tallies" in step for step in plan), plan
        assert not any("votes" in step for step in plan), plan


@pytest.mark.parametrize(("choice", "preferred"), [("left", "base"), ("right", "aligned")])
def test_the_chosen_side_is_the_preferred_one(store: Store, choice: str, preferred: str) -> None:
    ids = add_comparison(store)
    cast(store, store.create_participant(), ids["base"], ids["aligned"], choice)  # type: ignore[arg-type]
    (pair,) = store.preference_pairs("emoji").pairs
    rejected = {"base": "aligned", "aligned": "base"}[preferred]
    assert (pair.preferred_variant, pair.rejected_variant) == (preferred, rejected)
    np.testing.assert_array_equal(pair.preferred_latents, generation(preferred).latents)
    np.testing.assert_array_equal(pair.rejected_latents, generation(rejected).latents)
    assert pair.prompt == "a red apple, 3d style"


def test_every_vote_left_out_of_training_has_its_reason(store: Store) -> None:
    ids = add_comparison(store)
    pictures = {
        "bare": generation("bare", latents=None),
        "small": generation("small", latents=np.zeros((8, 2, 2), np.float16)),
    }
    ids |= dict(zip(pictures, store.add_generations(list(pictures.values())), strict=True))
    person, flagged = store.create_participant(), store.create_participant()
    cast(store, person, ids["base"], ids["aligned"], "left")
    cast(store, person, ids["base"], ids["aligned"], "tie")
    cast(store, person, ids["base"], ids["aligned"], "both_bad")
    cast(store, person, ids["base"], ids["aligned"], "skip")
    cast(store, person, ids["base"], ids["aligned"], "left", blind=False)
    cast(store, person, ids["base"], ids["aligned"], "left", kind="repeat")
    cast(store, person, ids["base"], ids["bare"], "left")
    cast(store, person, ids["base"], ids["small"], "left")
    (again,) = store.add_generations([generation("base", "c2")])
    cast(store, person, ids["base"], again, "left")
    cast(store, flagged, ids["base"], ids["aligned"], "left")
    store.flag_participant(flagged, "a robot")
    found = store.preference_pairs("emoji")
    assert len(found.pairs) == 1
    assert found.dropped == dict.fromkeys(sql.DROP_REASONS, 1)
    assert len(store.preference_pairs("emoji", blind_only=False).pairs) == 2
    assert store.preference_pairs("sd15").pairs == []


def test_counts_per_comparison_name_the_winner_whichever_side_it_stood_on(store: Store) -> None:
    ids = add_comparison(store)
    people = [store.create_participant() for _ in range(3)]
    cast(store, people[0], ids["base"], ids["aligned"], "left")
    cast(store, people[1], ids["aligned"], ids["base"], "right")
    cast(store, people[2], ids["aligned"], ids["base"], "tie")
    assert store.vote_counts_by_comparison() == {"c1": [VoteCount("aligned", "base", 0, 2, 1, 0)]}
    assert sum(store.votes_by_hour().values()) == 3
    assert store.prompts_of({"c1"}) == {"c1": "a red apple, 3d style"}


def test_totals_count_votes_people_and_comparisons(store: Store) -> None:
    assert (store.totals().votes, store.totals().last_vote_at) == (0, None)
    person, first, second = store.create_participant(), add_comparison(store), add_comparison(store, "c2")
    cast(store, person, first["base"], first["aligned"], "left")
    cast(store, person, first["aligned"], first["aligned_npo"], "skip")
    cast(store, person, second["base"], second["aligned"], "tie")
    totals = store.totals()
    assert (totals.votes, totals.participants, totals.comparisons) == (2, 1, 2)
    assert totals.last_vote_at is not None
    assert totals.last_vote_at.tzinfo is not None


def test_adapters_are_listed_newest_first(store: Store) -> None:
    run = store.start_training_run(TrainingRun("emoji", "negative", {"rank": 8}, ("v1", "v2")))
    first = store.register_adapter(AdapterRecord("emoji", "negative", "first", "a.safetensors", "1" * 64, run))
    second = store.register_adapter(AdapterRecord("emoji", "negative", "second", "b.safetensors", "2" * 64))
    store.register_adapter(AdapterRecord("emoji", "aligned", "third", "c.safetensors", "3" * 64))
    assert store.adapters("emoji", "negative") == [second, first]
    assert [adapter.name for adapter in store.adapters("emoji")] == ["third", "second", "first"]
    assert store.adapters("sd15") == []
    assert first.id is not None
    assert store.get_adapter(first.id) == first


def test_an_adapter_that_cannot_be_registered_is_refused(store: Store) -> None:
    adapter = store.register_adapter(AdapterRecord("emoji", "negative", "n", "a", "1" * 64, id="mine"))
    assert adapter.id == "mine"
    with pytest.raises(InputError, match="is taken"):
        store.register_adapter(adapter)
    with pytest.raises(InputError, match="choose from aligned, negative"):
        store.register_adapter(AdapterRecord("emoji", "odd", "n", "a", "1" * 64))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="There is no training run"):
        store.register_adapter(AdapterRecord("emoji", "negative", "n", "a", "1" * 64, "nowhere"))
    with pytest.raises(InputError, match="There is no adapter"):
        store.get_adapter("nowhere")


def test_a_training_run_remembers_its_votes_and_its_end(store: Store) -> None:
    run = TrainingRun("emoji", "negative", {"loss": "sigmoid"}, ("v1", "v2"))
    run_id = store.start_training_run(run)
    assert store.get_training_run(run_id).status == "running"
    store.finish_training_run(run_id, "finished", {"loss": 0.6})
    finished = store.get_training_run(run_id)
    assert (finished.vote_ids, finished.status, finished.metrics) == (("v1", "v2"), "finished", {"loss": 0.6})
    assert finished.finished_at is not None
    with pytest.raises(InputError, match="choose from running, finished, failed"):
        store.finish_training_run(run_id, "perhaps", {})  # type: ignore[arg-type]
