"""What a visitor meets before much is made: links that tell what they lead to, ways out, a phone on its side."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from service.services import Services
from tests.ui.serving import serving
from tests.ui.visitor import Visitor, browsing
from tests.ui.voting import Voter, fill_study

PHONE_ON_ITS_SIDE = (740, 360)


@pytest.fixture
def address(services: Services) -> Iterator[str]:
    with serving(services) as found:
        yield found


def test_a_shared_link_shows_the_labs_own_title_sentence_and_picture(address: str) -> None:
    for path in ("", "results"):
        page = httpx.get(address + path).text
        tags = dict(re.findall(r'<meta (?:property|name)="((?:og|twitter):\w+)" content="(.*?)"', page))
        assert tags["og:title"] == "Diffusion-NPO Lab"
        assert "same noise" in tags["og:description"]
        assert "Click to try out the app" not in page
        picture = httpx.get(tags["og:image"])
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")


@pytest.mark.needs("chromium")
def test_without_a_study_vote_leads_on_and_an_address_fills_the_form(address: str) -> None:
    with browsing() as page:
        page.goto(f"{address}vote")
        page.click("#npo-study >> text=Compare pictures of your own")
        page.wait_for_selector("#npo-generate")
        page.goto(f"{address}?prompt=a%20blue%20cat&seed=41")
        prompt = page.locator("#npo-prompt").locator("input, textarea")
        expect(prompt).to_have_value("a blue cat")
        expect(page.locator("#npo-seed").locator("input, textarea")).to_have_value("41")
        prompt.fill("a blue cat on a chair")
        page.goto(address)
        expect(prompt).to_have_value("a blue cat on a chair")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.innerText") == "Skip to the content"
        page.keyboard.press("Enter")
        page.wait_for_function("document.activeElement.id === 'npo-title' || location.hash === '#npo-title'")


@pytest.mark.needs("chromium")
def test_on_a_phone_on_its_side_the_pictures_can_be_seen_and_the_keyboard_stays_in_sight(
    address: str, services: Services
) -> None:
    fill_study(services.store)
    with browsing(*PHONE_ON_ITS_SIDE) as page:
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_selector(".npo-vote-panel img")
        for panel in page.locator(".npo-vote-panel").all():
            assert panel.bounding_box()["height"] >= 180  # type: ignore[index]
        for answer in page.locator("[data-choice]").all():
            box = answer.bounding_box()
            assert box is not None
            assert box["y"] + box["height"] <= PHONE_ON_ITS_SIDE[1]
        page.locator(".npo-vote-panel").first.focus()
        page.keyboard.press("Enter")
        assert page.locator(".npo-vote-panel.zoomed").count() == 2
        page.keyboard.press("Escape")
        assert page.locator(".npo-vote-panel.zoomed").count() == 0
        for _ in range(16):
            page.keyboard.press("Tab")
            assert page.evaluate(
                "document.activeElement === document.body || !!document.activeElement.closest('#npo-study')"
            )


@pytest.mark.needs("chromium")
def test_a_pick_that_is_taken_back_leaves_no_mark_and_readiness_is_said(address: str) -> None:
    with browsing() as page:
        visitor = Visitor(page, address)
        visitor.generate("a red apple", 3)
        assert page.locator("p.npo-hidden[role=status]").inner_text() == "Ready: which one is best?"
        visitor.pick("A", "B")
        assert page.locator(".npo-badge").count() == 2
        page.click("#npo-undo")
        page.wait_for_selector("#npo-vote", state="visible")
        expect(page.locator(".npo-badge")).to_have_count(0)
