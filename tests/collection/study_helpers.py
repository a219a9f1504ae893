"""A filled study and people who answer it, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collection.store import Store
from collection.studies.assignment import plan_items
from collection.studies.prompts import Prompt
from collection.studies.study_config import StudyPlan
from collection.types import Choice, Enrolment, StudyBallot, StudyItem
from tests.collection.helpers import generation

Answerer = Callable[[StudyBallot], Choice]


def make_plan(**changes: Any) -> StudyPlan:
    """A small plan: three variants, ten ballots a person."""
    values: dict[str, Any] = {
        "name": "pilot",
        "variants": ("base", "aligned", "aligned_npo"),
        "prompts": "emoji",
        "votes_per_pair": 3,
        "ballots_per_participant": 10,
        "min_view_s": 0.0,  # nobody waits in tests
    }
    return StudyPlan(**values | changes)


def make_study(store: Store, prompts: int = 6, **changes: Any) -> StudyPlan:
    """A study with a filled pool; its media say which comparison and variant they are."""
    plan = make_plan(**changes)
    texts = [Prompt(f"a thing number {number}", f"kind {number % 2}") for number in range(prompts)]
    store.create_study(plan, plan_items(plan, texts))
    for item in store.items_to_fill(plan.name):
        assert fill(store, item, plan)
    return plan


def fill(store: Store, item: StudyItem, plan: StudyPlan) -> bool:
    """What pregenerate does, without a model."""
    variants = plan.variants if item.kind == "normal" else (plan.variants[0], "degraded")
    comparison_id = f"{plan.name}-{item.number}"
    made = [
        generation(variant, comparison_id, prompt=item.prompt, seed=item.seed, latents=None) for variant in variants
    ]
    return store.fill_item(item.id, made)


def enrol(store: Store, study: str = "pilot", **options: Any) -> Enrolment:
    """A new participant who agreed."""
    return store.enrol(study, None, "1", **options)


def variants_of(store: Store, ballot: StudyBallot) -> tuple[str, str]:
    """What stands left and right: only the database tells."""
    left = store.get_generation(ballot.left_generation_id)
    return left.variant, store.get_generation(ballot.right_generation_id).variant


def take_part(
    store: Store, answer: Answerer, study: str = "pilot", seconds: float = 2.0
) -> tuple[str, list[StudyBallot]]:
    """Somebody who answers to the end; (participant, the ballots)."""
    person = enrol(store, study).participant_id
    shown: list[StudyBallot] = []
    while (ballot := store.next_study_ballot(study, person)) is not None:
        shown.append(ballot)
        store.answer(ballot.ballot_id, person, answer(ballot), seconds)
    return person, shown
