"""A study with real pictures that tell their variant only to the test, and a person at the page Vote."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from collection.store import Store
from collection.studies.assignment import plan_items
from collection.studies.prompts import Prompt
from collection.studies.study_config import StudyPlan
from collection.types import StudyItem
from npo_core.media.files import PNG_MEDIA_TYPE, png_bytes
from service.arena.attention_checks import VARIANT
from tests.collection.helpers import VARIANTS, generation
from tests.collection.study_helpers import make_plan

MEDIA_TYPE = PNG_MEDIA_TYPE
FPS: float | None = None
UNLOCKED = "document.querySelector('[data-choice=skip]')?.getAttribute('aria-disabled') === 'false'"


def picture(item: StudyItem, place: int) -> bytes:
    """A small picture that depends on the item and the place of its variant among the item's."""
    rng = np.random.default_rng([item.number, place])
    cells = rng.integers(0, 255, (4, 4, 3), np.uint8)
    return png_bytes(Image.fromarray(cells).resize((64, 64), Image.Resampling.NEAREST))


def fill_study(store: Store, prompts: int = 8, **changes: Any) -> StudyPlan:
    """A study with a filled pool; picture number n of an item is that of plan.variants[n]."""
    values: dict[str, Any] = {"family": "tiny", "min_view_s": 0.05, "votes_per_pair": 50}
    plan = make_plan(**values | changes)
    store.create_study(
        plan, plan_items(plan, [Prompt(f"prompt {number}", f"kind {number % 2}") for number in range(prompts)])
    )
    for item in store.items_to_fill(plan.name):
        variants = plan.variants if item.kind == "normal" else (plan.variants[-1], VARIANT)
        made = []
        for place, variant in enumerate(variants):
            media = picture(item, place)
            record = generation(variant, f"{plan.name}-{item.number}", prompt=item.prompt, seed=item.seed, latents=None)
            record = replace(record, modality=plan.modality, media_type=MEDIA_TYPE, fps=FPS)
            sha256 = hashlib.sha256(media).hexdigest()
            made.append(replace(record, family=plan.family, media=media, media_sha256=sha256))
        assert store.fill_item(item.id, made)
    return plan


def fill_pool(store: Store, family: str, comparisons: int, first: int = 0) -> None:
    """Comparisons of all three variants for the arena, each with its own pictures; they are numbered from `first`."""
    rng = np.random.default_rng(first)
    for number in range(first, first + comparisons):
        made = []
        for variant in VARIANTS:
            cells = rng.integers(0, 255, (4, 4, 3), np.uint8)
            media = png_bytes(Image.fromarray(cells).resize((64, 64), Image.Resampling.NEAREST))
            record = generation(variant, f"pool-{number}", prompt=f"thing {number}", family=family, media=media)
            made.append(replace(record, media_sha256=hashlib.sha256(media).hexdigest()))
        store.add_generations(made)


def variant_by_media(store: Store) -> dict[str, str]:
    """sha256 of a picture -> its variant: what only the server knows."""
    with store.reading() as session:
        rows = session.connection().exec_driver_sql("SELECT media_sha256, variant FROM generations")
        return {row[0]: row[1] for row in rows}


def sha256_of(uri: str) -> str:
    """The sha256 of the bytes in a data URI."""
    return hashlib.sha256(base64.b64decode(uri.partition(",")[2])).hexdigest()


class Voter:
    """A person who takes part with the keyboard alone."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.set_default_timeout(30_000)
        page.goto(f"{address}vote")
        page.wait_for_selector("#npo-vote-agree")

    def agree(self) -> None:
        """Enter presses the button of the consent."""
        self.page.keyboard.press("Enter")

    def ballot_id(self) -> str:
        """The ballot on the screen."""
        return str(self.page.locator("#npo-study").get_attribute("data-shown"))

    def answer_all(self, keys: str = "ArrowLeft", most: int = 200) -> int:
        """Answers with the key in `keys` (cycled, separated by spaces) until the end; returns how many pairs."""
        cycle, pairs = keys.split(), 0
        for _ in range(most):
            self.page.wait_for_function(
                f"{UNLOCKED} || document.querySelector('.npo-vote-text .npo-primary:not(:disabled)') || "
                "document.querySelector('#npo-study .npo-vote-code')"
            )
            if self.page.locator(".npo-vote-code").count():
                return pairs
            if self.page.locator(".npo-vote-pair").count():
                shown = self.ballot_id()
                self.page.keyboard.press(cycle[pairs % len(cycle)])
                pairs += 1
                self.page.wait_for_function(
                    "shown => document.querySelector('#npo-study').dataset.shown !== shown || "
                    "!document.querySelector('.npo-vote-pair')",
                    arg=shown,
                )
            else:
                self.page.keyboard.press("Enter")
        raise AssertionError("the study does not end")
