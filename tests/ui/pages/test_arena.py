"""The arena: the page Vote of a fresh install, by keyboard and by touch."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from collection.types import NewBallot
from npo_core.variants import VARIANTS
from service.generation.pool_filling import WANTED, PoolFiller
from service.services import Services
from tests.programs.needs import find_chromium
from tests.ui.serving import serving
from tests.ui.visitor import Visitor, browsing
from tests.ui.voting import fill_pool, sha256_of, variant_by_media

pytestmark = pytest.mark.needs("chromium")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PICKS, MOST_S = 20, 60
READY = """before => { const root = document.querySelector('#npo-study');
  return root?.dataset.shown && root.dataset.shown !== before && root.querySelector('.npo-arena-pair'); }"""
NAMED = "document.querySelector('#npo-study').dataset.named === document.querySelector('#npo-study').dataset.shown"
MEASURE = """async () => {
  const root = document.getElementById('npo-study'), shown = root.dataset.shown, started = performance.now();
  document.dispatchEvent(new KeyboardEvent('keydown', { key: ' ', bubbles: true }));
  while (root.dataset.shown === shown) await new Promise(requestAnimationFrame);
  const images = [...root.querySelectorAll('.npo-vote-panel img')];
  return images.every((image) => image.complete && image.naturalWidth) ? performance.now() - started : Infinity;
}"""


@pytest.fixture
def served(services: Services) -> Iterator[tuple[Services, str]]:
    with serving(services) as address:
        yield services, address


class Judge:
    """Somebody in the arena."""

    def __init__(self, page: Page, services: Services) -> None:
        self.page, self.shown, self.seen = page, "", list[tuple[str, ...]]()
        self._names = variant_by_media(services.store)

    def look(self) -> None:
        """Waits for the next pair, which must be new and tell no name."""
        self.page.wait_for_function(READY, arg=self.shown)
        self.shown = self.page.locator("#npo-study").get_attribute("data-shown") or ""
        told = self.page.locator("#npo-vote-stage").inner_text()
        assert [variant.label for variant in VARIANTS.values() if variant.label in told] == []
        sources = [image.get_attribute("src") or "" for image in self.page.locator(".npo-vote-panel img").all()]
        self.seen.append(tuple(sha256_of(source) for source in sources))
        self.page.wait_for_timeout(220)

    def learn(self) -> None:
        """Waits for the names, which must be those of the pictures above them."""
        self.page.wait_for_function(NAMED)
        captions = self.page.locator(".npo-arena-side figcaption strong").all_inner_texts()
        assert captions == [VARIANTS[self._names[sha256]].label for sha256 in self.seen[-1]]
        self.page.wait_for_timeout(220)

    def assert_no_repeats(self) -> None:
        pictures = [sha256 for pair in self.seen for sha256 in pair]
        assert len(set(pictures)) == len(pictures)


def test_twenty_picks_with_the_keyboard_in_a_minute(served: tuple[Services, str]) -> None:
    services, address = served
    fill_pool(services.store, services.family.name, WANTED)
    with browsing() as page:
        started_s = time.monotonic()
        page.goto(f"{address}vote")
        judge, times = Judge(page, services), []
        for number in range(PICKS):
            judge.look()
            page.keyboard.press(("ArrowLeft", "b", "ArrowDown", "A")[number % 4])
            judge.learn()
            times.append(page.evaluate(MEASURE))
        took_s = time.monotonic() - started_s
        print(f"{PICKS} picks in {took_s:.1f} s; key to next pair, ms:", [round(each) for each in times])
        assert took_s < MOST_S
        assert sorted(times)[len(times) // 2] < 150
        judge.assert_no_repeats()
        count = page.locator("#npo-arena-count")
        expect(count).to_contain_text("20 picks by you · 5 more by anybody until the negative model is retrained")
        judge.look()
        page.keyboard.press("ArrowLeft")
        judge.learn()
        judge.look()  # comes by itself
    votes = list(services.store.exported_votes())
    assert len(votes) == PICKS + 1
    assert all(vote.ballot.blind and 0.1 < (vote.vote.response_time_s or 0) < MOST_S for vote in votes)
    assert services.decided_picks()["image"] == 16
    assert services.store.verify() == []


def test_twenty_picks_by_touch_on_a_phone(served: tuple[Services, str]) -> None:
    services, address = served
    fill_pool(services.store, services.family.name, PICKS + 1)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        page = chromium.new_page(**PHONE)  # type: ignore[arg-type]
        page.set_default_timeout(30_000)
        started_s = time.monotonic()
        page.goto(f"{address}vote")
        judge = Judge(page, services)
        for number in range(PICKS):
            judge.look()
            page.locator(".npo-arena-side .npo-vote-panel").nth(number % 2).tap()
            judge.learn()
            page.locator(".npo-arena-next").tap()
        assert time.monotonic() - started_s < MOST_S
        judge.look()
        judge.assert_no_repeats()
        boxes = [panel.bounding_box() for panel in page.locator(".npo-vote-panel").all()]
        assert all(box and box["width"] > 230 for box in boxes)
        _assert_no_button_sits_lower(page)
        tie = page.locator("[data-choice=tie]").bounding_box()
        assert tie is not None
        assert max(box["y"] + box["height"] for box in boxes if box) < tie["y"] < 844 - tie["height"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator(".npo-vote-panel").first.tap()
        judge.learn()
        page.locator(".npo-arena-next").tap()
        page.wait_for_selector("text=You have judged every pair there is")
        fill_pool(services.store, services.family.name, 1, first=PICKS + 1)
        page.wait_for_function(READY, arg=judge.shown)
        chromium.close()
    assert services.pool.running_low.is_set()


def _assert_no_button_sits_lower(page: Page) -> None:
    """gradio sets the last child of a page's HTML apart."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.wait_for_timeout(500)
    lines = page.evaluate(
        "[...document.querySelectorAll('[data-choice]')].map((each) => each.getBoundingClientRect())"
        ".map((box) => `${box.top} to ${box.bottom}`)"
    )
    assert len(lines) == 3
    assert len(set(lines)) == 1, lines
    page.set_viewport_size(PHONE["viewport"])  # type: ignore[arg-type]


def test_who_voted_on_compare_is_not_asked_again_and_agreement_is_told(served: tuple[Services, str]) -> None:
    services, address = served
    with browsing() as page:
        visitor = Visitor(page, address)
        visitor.generate("a red apple")
        visitor.pick("A", "B")
        page.goto(f"{address}vote")
        page.wait_for_selector("text=You have judged every pair there is")
        expect(page.locator("#npo-arena-count")).to_contain_text("3 picks by you")
        fill_pool(services.store, services.family.name, 8)
        judge = Judge(page, services)
        for _ in range(7):
            judge.look()
            answered = judge.shown.removeprefix("offer-").split(".")[:2]
            other = services.store.create_participant()
            ballot, *_ = services.store.create_ballots([NewBallot(*answered, other)])
            services.store.vote(ballot, other, "left")
            page.keyboard.press("a")
            judge.learn()
        expect(page.locator("#npo-arena-count")).to_contain_text("you agree with everybody on 100% of 7")


def test_the_pool_fills_itself_only_while_nobody_is_served(services: Services) -> None:
    filler = PoolFiller(services)
    with services.compare.desk.turn(services.generator):
        assert not filler.step()
    assert filler.step()
    assert services.store.count_to_judge(services.family.name) == 1
    fill_pool(services.store, services.family.name, WANTED)
    assert not filler.step()
    services.pool.running_low.set()
    assert filler.step()
    assert not filler.step()
    with services.store.reading() as session:
        made = "SELECT DISTINCT prompt, seed FROM generations WHERE comparison_id NOT LIKE 'pool-%'"
        prompts, seeds = zip(*session.connection().exec_driver_sql(made), strict=True)
    assert set(prompts) <= set(services.suggestions)
    assert len(set(seeds)) == 2
    assert services.store.verify() == []
