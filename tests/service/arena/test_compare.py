from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from collection.store import Store
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from npo_core.media.files import png_bytes, sha256_hex
from npo_core.requests import GenerationRequest
from npo_core.variants import DEFAULT_VARIANTS
from service.arena.compare import BlindProgress, CompareService
from service.arena.picks import Pick
from service.errors import INPUT_ERRORS, InputError, RefusedError
from service.services import Services
from tests.service.helpers import REQUEST, make_services


def test_a_comparison_is_stored_with_its_ballots_before_anything_is_shown(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    stored = services.store.comparison(view.comparison_id)
    assert {generation.variant for generation in stored} == set(DEFAULT_VARIANTS)
    assert {generation.media_sha256 for generation in stored} == {sha256_hex(panel.media) for panel in view.panels}
    assert len(services.store.ballots(view.comparison_id, who)) == 3
    first = services.store.get_generation(stored[0].id or "")
    assert first.latents is not None
    assert (first.seed, first.steps, first.aligned_id, first.negative_id) == (
        view.request.seed,
        3,
        "tiny-aligned",
        "tiny-negative",
    )
    assert services.store.totals().votes == 0


def test_panels_carry_letters_and_pictures_and_nothing_that_names_a_variant(services: Services) -> None:
    view = services.compare.compare(REQUEST, services.visitors.named(None))
    assert [panel.letter for panel in view.panels] == ["A", "B", "C"]
    assert {panel.media_type for panel in view.panels} == {"image/png"}
    assert set(vars(view.panels[0])) == {"letter", "media", "media_type"}
    assert all(name.encode() not in panel.media for panel in view.panels for name in DEFAULT_VARIANTS)


def test_the_order_of_the_panels_is_shuffled_anew_for_every_comparison(services: Services) -> None:
    compare = CompareService(services.store, services.generator, services.shelf, services.visitors, random.Random(1))
    who = services.visitors.named(None)
    orders = set()
    for _ in range(8):
        view = compare.compare(replace(REQUEST, steps=1), who)
        revealed = compare.vote(view.comparison_id, who, Pick("A"))
        orders.add(tuple(panel.variant for panel in revealed.panels))
    assert len(orders) > 3


def test_previews_come_in_the_order_in_which_the_pictures_are_shown(services: Services) -> None:
    previews = []

    def on_step(progress: BlindProgress) -> None:
        if progress.step == progress.total_steps:  # the last preview is the picture itself
            previews.extend(progress.preview())

    view = services.compare.compare(REQUEST, services.visitors.named(None), on_step=on_step)
    assert [png_bytes(image) for image in previews] == [panel.media for panel in view.panels]


def test_a_pick_becomes_pairwise_votes_and_is_answered_with_the_names(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    revealed = services.compare.vote(view.comparison_id, who, Pick("B", "C"))
    variant = {panel.letter: panel.variant for panel in revealed.panels}
    assert set(variant.values()) == set(DEFAULT_VARIANTS)
    assert [panel.media for panel in revealed.panels] == [panel.media for panel in view.panels]
    won = {}
    for count in services.store.vote_counts("tiny"):
        for name, wins in ((count.variant_a, count.wins_a), (count.variant_b, count.wins_b)):
            won[name] = won.get(name, 0) + wins
    assert won == {variant["B"]: 2, variant["A"]: 1, variant["C"]: 0}
    assert revealed.blind
    assert revealed.settings["seed"] == view.request.seed


def test_no_difference_is_three_ties_and_a_lone_best_says_nothing_about_the_other_two(services: Services) -> None:
    who = services.visitors.named(None)
    for pick in (Pick(no_difference=True), Pick("A")):
        view = services.compare.compare(REQUEST, who)
        services.compare.vote(view.comparison_id, who, pick)
    counts = services.store.vote_counts("tiny")
    assert sum(count.ties for count in counts) == 3
    assert sum(count.wins_a + count.wins_b for count in counts) == 2


def test_the_same_pick_twice_is_one_vote(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    for _ in range(2):
        services.compare.vote(view.comparison_id, who, Pick("A", "B"))
    assert services.store.totals().votes == 3


def test_another_pick_after_the_names_are_known_needs_an_undo_and_is_stored_as_not_blind(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    services.compare.vote(view.comparison_id, who, Pick("A"))
    with pytest.raises(RefusedError, match="answered already; undo"):
        services.compare.vote(view.comparison_id, who, Pick("B"))
    services.compare.undo(view.comparison_id, who)
    assert services.store.totals().votes == 0
    assert not services.compare.vote(view.comparison_id, who, Pick("B")).blind
    assert services.store.vote_counts("tiny") == []
    assert sum(count.total for count in services.store.vote_counts("tiny", blind_only=False)) == 2


def test_an_undo_without_an_answer_is_one_sentence(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    with pytest.raises(InputError, match="no answer to take back"):
        services.compare.undo(view.comparison_id, who)


def test_nobody_votes_on_a_comparison_that_was_shown_to_someone_else(services: Services) -> None:
    view = services.compare.compare(REQUEST, services.visitors.named(None))
    stranger = services.visitors.named(None)
    for comparison_id in (view.comparison_id, "nonsense", ""):
        with pytest.raises(RefusedError, match="was not shown to this participant"):
            services.compare.vote(comparison_id, stranger, Pick("A"))


def test_a_comparison_outlives_a_restart_between_showing_and_voting(
    services: Services, tmp_path: Path, family: ModelFamily, generator: Generator
) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    restarted = make_services(tmp_path, family, generator)
    revealed = restarted.compare.vote(view.comparison_id, who, Pick("C", "A"))
    assert [panel.media for panel in revealed.panels] == [panel.media for panel in view.panels]
    assert services.store.totals().votes == 3


def test_an_undo_outlives_a_restart_and_the_next_pick_is_still_not_blind(
    services: Services, tmp_path: Path, family: ModelFamily, generator: Generator
) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    services.compare.vote(view.comparison_id, who, Pick("A"))
    services.compare.undo(view.comparison_id, who)
    restarted = make_services(tmp_path, family, generator)
    assert not restarted.compare.vote(view.comparison_id, who, Pick("B")).blind
    assert services.store.vote_counts("tiny") == []


def test_a_participant_is_kept_when_known_and_made_when_not(services: Services) -> None:
    who = services.visitors.named("")
    assert services.visitors.named(who) == who
    assert not services.store.has_participant(who), "nobody has done anything yet"
    assert services.visitors.named("0" * 32) not in (who, "0" * 32), "of another database"
    with pytest.raises(InputError, match="send back the one that you were given"):
        services.visitors.named("made up")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "x" * 500}, "500 tokens and Tiny reads 75"),
        ({"seed": -1}, "The seed is -1"),
        ({"seed": 2**63}, "The seed is 9223372036854775808"),
        ({"steps": 0}, "The number of steps is 0"),
        ({"guidance_scale": 0.0}, "guidance scale is 0"),
        ({"variants": ("base",)}, "compare 2 to 5"),
    ],
)
def test_a_request_that_cannot_be_made_is_one_sentence_and_stores_nothing(
    services: Services, changes: dict[str, object], words: str
) -> None:
    who = services.visitors.named(None)
    with pytest.raises(INPUT_ERRORS) as raised:
        services.compare.compare(replace(REQUEST, **changes), who, own_seed=True)  # type: ignore[arg-type]
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    services.compare.compare(REQUEST, who)  # and the next one works


def test_two_people_at_once_each_get_their_own_pictures(services: Services) -> None:
    alone = services.compare.compare(REQUEST, services.visitors.named(None), own_seed=True)
    views = {}

    def work(seed: int) -> None:
        who = services.visitors.named(None)
        views[seed] = services.compare.compare(GenerationRequest("a red apple", seed=seed), who, own_seed=True)

    threads = [Thread(target=work, args=(seed,)) for seed in (7, 8, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {panel.media for panel in views[7].panels} == {panel.media for panel in alone.panels}
    assert not {panel.media for panel in views[8].panels} & {panel.media for panel in views[9].panels}


def test_votes_are_on_the_disk_when_the_names_are_told(services: Services, tmp_path: Path) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    services.compare.vote(view.comparison_id, who, Pick("A", "B"))
    with Store(f"sqlite:///{tmp_path / 'npo.db'}", tmp_path) as another:
        assert another.totals().votes == 3


def test_visitors_are_told_while_the_model_warms_up(services: Services) -> None:
    seen = []
    generator = services.generator
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "load", lambda: seen.append(services.compare.warming_up))
        services.compare.warm_up()
        assert not services.compare.warming_up
        patch.setattr(generator, "warm_up", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            services.compare.warm_up()
    assert seen == [True, True]
    assert not services.compare.warming_up
