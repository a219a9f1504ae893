"""What a person does on the Compare page, through Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect, sync_playwright

from tests.programs.needs import find_chromium

SLOW_MS = 300_000


@contextmanager
def browsing(width_px: int = 1280, height_px: int = 900) -> Iterator[Page]:
    """A page of a fresh browser that remembers nothing."""
    chromium = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": width_px, "height": height_px})
        page.set_default_timeout(SLOW_MS)
        expect.set_options(timeout=SLOW_MS)
        yield page
        browser.close()


class Visitor:
    """One person at the page."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        page.goto(address)
        page.wait_for_selector("#npo-generate")
        expect(self.seed).to_have_value("")

    @property
    def seed(self):  # type: ignore[no-untyped-def]  # Playwright's Locator
        return self.page.locator("#npo-seed").locator("input, textarea")

    def generate(self, prompt: str, seed: int | str = "") -> None:
        """Types, presses Generate and waits for the question; an empty seed is drawn by the lab."""
        self.ask(prompt, seed)
        self.page.wait_for_selector("#npo-vote", state="visible")

    def ask(self, prompt: str, seed: int | str) -> None:
        """Types and presses Generate."""
        self.page.locator("#npo-prompt").locator("input, textarea").fill(prompt)
        self.seed.fill(str(seed))
        self.page.click("#npo-generate")

    def pick(self, best: str, worst: str = "no_worst") -> None:
        """Chooses, saves and waits for thanks."""
        self.choose(best, worst)
        self.page.click("#npo-save")
        self.page.wait_for_selector("#npo-reveal", state="visible")

    def choose(self, best: str, worst: str = "no_worst") -> None:
        """Presses the chips."""
        self.page.locator(f'#npo-best input[value="{best}"]').check()
        self.page.locator(f'#npo-worst input[value="{worst}"]').check()

    def pictures(self) -> dict[str, str]:
        """What stands under each panel (its letter, after the reveal its name) -> the picture's address."""
        figures = self.page.locator(".npo-panel").all()
        names = [figure.locator(".npo-variant, .npo-letter").last.inner_text() for figure in figures]
        sources = [figure.locator("img").get_attribute("src") or "" for figure in figures]
        return dict(zip(names, sources, strict=True))

    def notice(self) -> str:
        """The sentence that the page gives."""
        self.page.wait_for_selector("#npo-notice [role=alert]")
        return self.page.locator("#npo-notice").inner_text()

    def stage_without_pictures(self) -> str:
        """The HTML around the pictures."""
        return re.sub(r'src="data:[^"]+"', "", self.page.locator("#npo-stage").inner_html())

    def wait_for_line(self, words: str, wait_s: float = 60) -> None:
        """Until the line of versions in use says `words`."""
        deadline = time.monotonic() + wait_s
        while words not in self.page.locator("#npo-in-use").inner_text():
            assert time.monotonic() < deadline, f"{words!r} does not appear"
            self.page.wait_for_timeout(250)
