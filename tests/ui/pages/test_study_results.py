"""What the page Results says of a study."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from collection.statistics.report import as_json
from collection.statistics.summary import extremes, summarise
from collection.types import VoteCount
from npo_core.media.files import mp4_bytes, open_image
from service.services import Services
from tests.collection.study_helpers import take_part, variants_of
from tests.ui import voting
from tests.ui.serving import serving
from tests.ui.visitor import browsing
from tests.ui.voting import fill_study
from ui.components.plots import interval_svg, strengths_svg, votes_svg, win_rates_svg
from ui.pages import results


@pytest.fixture
def voted(services: Services) -> Services:
    """A study of three people who prefer what comes last in the alphabet."""
    vote_in_a_study(services).store.close_study("pilot")
    return services


def vote_in_a_study(services: Services, modality: str = "image") -> Services:
    store = services.store
    plan = {"prompts": 4, "training": False, "check_share": 0.0, "votes_per_pair": 3, "min_view_s": 0.0}
    fill_study(store, modality=modality, **plan)

    def answer(ballot):  # type: ignore[no-untyped-def]
        left, right = variants_of(store, ballot)
        return "left" if left > right else "right"

    for _ in range(3):
        take_part(store, answer)
    return services


def test_a_study_is_offered_and_told_apart_from_the_other_votes(voted: Services) -> None:
    offered = results.offer_studies(voted)
    assert offered["choices"] == [("All votes", ""), ("pilot", "pilot")]
    html = results.render(voted, "pilot")
    for part in (
        "Study pilot",
        "Win matrix",
        "By category",
        "Best and worst prompts",
        "Methodology 3",
        "faults on our side",
    ):
        assert part in html
    assert "need 1 more vote." in html, "nine are too few for advice"


def test_pictures_and_rates_are_shown_once_the_study_is_closed_and_not_before(services: Services) -> None:
    vote_in_a_study(services)
    assert results.offer_studies(services)["choices"] == [("All votes", "")]
    for html in (results.render(services, "pilot"), results.render(services)):
        assert "data:image" not in html
        assert "Win matrix" not in html
    services.store.close_study("pilot")
    html = results.render(services, "pilot")
    gallery = html[html.index("Best and worst prompts") : html.index("Over time")]
    assert gallery.count("data:image/png") >= 6
    assert "are not shown" not in gallery


@pytest.mark.needs("chromium")
def test_clips_of_a_closed_study_play_from_addresses_of_their_own(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Needs a Chromium that plays H.264. Safari plays no data: address."""
    still = voting.picture
    monkeypatch.setattr(voting, "picture", lambda item, place: mp4_bytes([open_image(still(item, place))] * 8, 8.0))
    monkeypatch.setattr(voting, "MEDIA_TYPE", "video/mp4")
    vote_in_a_study(services, "video").store.close_study("pilot")
    html = results.render(services, "pilot")
    assert html.count("data-clip=") >= 6
    with serving(services) as address, browsing() as page:
        page.goto(f"{address}results")
        page.locator("#npo-which label", has_text="pilot").click()
        page.wait_for_selector(".npo-gallery video")
        videos = "[...document.querySelectorAll('.npo-gallery video')]"
        assert page.evaluate(f"{videos}.length") == html.count("data-clip=")
        assert page.evaluate(f"{videos}.every((video) => video.poster.startsWith('data:image/png'))")
        if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.640028\"')"):
            pytest.skip("this Chromium plays no H.264")
        page.wait_for_function(
            f"{videos}.every((video) => video.src.startsWith('blob:') && !video.paused && video.currentTime > 0.1)"
        )


def test_downloads_are_whole_files(voted: Services) -> None:
    summary = summarise(voted.store, study="pilot")
    for svg in (strengths_svg(summary), win_rates_svg(summary), votes_svg(summary.by_hour), votes_svg({})):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
    html = results.render(voted, "pilot")
    assert re.findall(r'download="([^"]+)"', html) == [
        "strengths.svg",
        "win-rates.svg",
        "votes-over-time.svg",
        "results.json",
    ]
    assert len(summary.by_category) > 1
    for rates in summary.by_category.values():
        assert {rate.people for rate in rates} == {3}, "votes of one person hang together in a category too"
        assert all(rate.low is not None for rate in rates)
    told = json.loads(json.dumps(as_json(summary)))
    assert {"power", "by_category", "by_hour", "best_prompts", "methodology", "agreement"} <= set(told)


def test_an_interval_is_drawn_where_its_numbers_are() -> None:
    root = ElementTree.fromstring(interval_svg("t", [("a", 0.75, 0.5, 1.0)], middle=0.5, reach=0.5))
    circle = root.find("{*}circle")
    lines = root.findall("{*}line")
    assert circle is not None
    middle, bar = lines
    assert float(middle.attrib["x1"]) == float(bar.attrib["x1"])  # its low end is one half
    assert float(circle.attrib["cx"]) == (float(bar.attrib["x1"]) + float(bar.attrib["x2"])) / 2


def test_one_lucky_vote_is_no_extreme() -> None:
    counts = {"lucky": [VoteCount("a", "b", 1, 0, 0, 0)], "sure": [VoteCount("a", "b", 19, 1, 0, 0)]}
    counts["bad"] = [VoteCount("a", "b", 0, 9, 0, 0)]
    best, worst = extremes(counts)
    assert [(score.variant, score.comparison_id) for score in best] == [("a", "sure"), ("b", "bad")]
    assert [(score.variant, score.comparison_id) for score in worst] == [("a", "bad"), ("b", "sure")]
