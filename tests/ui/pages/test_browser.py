"""The whole page in a browser, on the tiny family: its pictures are noise, its flow is the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import expect

from collection.types import AdapterRecord
from npo_core.media.files import open_image, sha256_file
from npo_core.weights import save_adapter
from service.services import Services
from tests.service.helpers import register
from tests.tiny import tiny_weights
from tests.ui.serving import serving
from tests.ui.visitor import Visitor, browsing

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
def visitor(services: Services) -> Iterator[Visitor]:
    with serving(services) as address, browsing() as page:
        yield Visitor(page, address)


def test_a_visitor_generates_picks_undoes_downloads_and_is_the_same_person_after_a_reload(
    visitor: Visitor, services: Services, tmp_path: Path
) -> None:
    page = visitor.page
    visitor.generate("a red apple, 3d style", 7)
    blind = visitor.pictures()
    assert list(blind) == ["A", "B", "C"]
    assert not any(word in visitor.stage_without_pictures().lower() for word in ("base", "aligned", "npo_"))
    visitor.pick("B", "C")
    revealed = visitor.pictures()
    assert set(revealed) == {"Base", "Aligned", "Aligned + NPO"}
    assert list(revealed.values()) == list(blind.values())
    assert services.store.totals().votes == 3
    page.wait_for_selector("#npo-slider img")
    with page.expect_download() as strip:
        page.click("text=Download the strip")
    strip.value.save_as(tmp_path / "strip.png")
    assert open_image((tmp_path / "strip.png").read_bytes()).width > 3 * 256
    with page.expect_download() as record:
        page.click("text=Settings (JSON)")
    record.value.save_as(tmp_path / "record.json")
    assert json.loads((tmp_path / "record.json").read_text())["settings"]["seed"] == 7
    page.click("#npo-undo")
    page.wait_for_selector("#npo-vote", state="visible")
    assert services.store.totals().votes == 0
    again = Visitor(page, page.url)
    again.generate("a red apple, 3d style", 7)
    again.pick("no_difference")
    assert services.store.totals().participants == 1
    assert services.store.totals().votes == 3


def test_mistakes_are_told_in_one_sentence_and_the_next_try_works(visitor: Visitor) -> None:
    for prompt, seed, words in (
        ("", 7, "The prompt is empty; write what the picture should show."),
        ("x" * 400, 7, "The prompt has 400 tokens and Tiny reads 75; shorten it."),
        ("a cat", -1, "The seed is -1; give a whole number from 0 to 9223372036854775807."),
        ("a cat", "many", "The seed is 'many'; give a whole number from 0 to 9223372036854775807."),
    ):
        visitor.ask(prompt, seed)
        expect(visitor.page.locator("#npo-notice")).to_have_text(words)
    visitor.generate("a cat", 7)
    visitor.page.click("#npo-save")
    expect(visitor.page.locator("#npo-vote-notice")).to_contain_text("No best panel was chosen")
    visitor.pick("A")


def test_chips_words_dice_and_new_versions_follow_what_happens(
    visitor: Visitor, services: Services, tmp_path: Path
) -> None:
    page = visitor.page
    prompt = page.locator("#npo-prompt").locator("input, textarea")
    prompt.fill("a red aple")
    expect(page.locator("#npo-words")).to_contain_text("“aple”")
    page.locator("#npo-near label").first.click()
    expect(prompt).to_have_value("a red apple")
    page.locator('#npo-style input[value="flat"]').check()
    expect(prompt).to_have_value("a red apple, flat style")
    visitor.seed.fill("7")
    page.click("#npo-dice")
    expect(visitor.seed).to_have_value("")
    register(services, tmp_path, "negative", 11, "NPO from 24 picks")
    visitor.wait_for_line("NPO from 24 picks")
    page.goto(page.url + "results")
    page.wait_for_selector("text=No votes yet")
    page.click("nav >> text=About")
    page.wait_for_selector("text=The idea")


def test_a_picture_is_enlarged_and_a_phone_is_wide_enough(services: Services) -> None:
    with serving(services) as address, browsing(390, 844) as page:
        visitor = Visitor(page, address)
        visitor.generate("a cat", 7)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_label("Enlarge picture B").click()
        large = page.locator("dialog.npo-viewer img")
        assert large.get_attribute("src") == visitor.pictures()["B"]
        page.keyboard.press("Escape")
        expect(page.locator("dialog.npo-viewer")).to_have_count(0)


def test_alpha_and_beta_follow_what_the_negative_model_was_trained_for(
    visitor: Visitor, services: Services, tmp_path: Path
) -> None:
    """A new version moves the sliders, one that says nothing moves them back, and pictures are made with them."""
    page = visitor.page
    page.click("text=Advanced settings")
    alpha, beta = (page.locator(f"#npo-{name} input[type=number]") for name in ("alpha", "beta"))
    expect(alpha).to_have_value(f"{services.family.alpha:g}")
    file = save_adapter(replace(tiny_weights(11), trained_for={"alpha": 0.5, "beta": 0.25}), tmp_path / "guided")
    record = AdapterRecord(services.family.name, "negative", "guided", str(file), sha256_file(file))
    services.store.register_adapter(record)
    expect(beta).to_have_value("0.25")
    expect(alpha).to_have_value("0.5")
    visitor.generate("a red apple, 3d style", 7)
    visitor.pick("no_difference")
    with page.expect_download() as told:
        page.click("text=Settings (JSON)")
    told.value.save_as(tmp_path / "record.json")
    settings = json.loads((tmp_path / "record.json").read_text())["settings"]
    assert (settings["alpha"], settings["beta"]) == (0.5, 0.25)
    register(services, tmp_path, "negative", 12, "plain")
    expect(beta).to_have_value(f"{services.family.beta:g}")
