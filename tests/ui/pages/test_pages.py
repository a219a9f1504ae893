from __future__ import annotations

import re

import gradio as gr
import pytest

from app import PAGES, build_app
from collection.statistics.rates import WinRate
from collection.statistics.strengths import Rating
from collection.statistics.summary import Summary
from npo_core.variants import VARIANTS
from service.arena.picks import Pick
from service.services import Services
from tests.collection.helpers import add_comparison, cast
from tests.service.helpers import REQUEST
from ui import theme
from ui.components import charts, html
from ui.pages import about, results


@pytest.mark.parametrize("path", PAGES)
def test_every_page_builds_under_its_title(path: str, services: Services) -> None:
    title, build = PAGES[path]
    page = build(services)
    html = "".join(str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML))
    assert f"aria-current=page>{title}<" in html


def test_the_links_lead_to_all_pages() -> None:
    assert dict(html.PAGE_LINKS) == {title: f"./{path}" for path, (title, _) in PAGES.items()}


def test_only_the_named_endpoints_are_public(services: Services) -> None:
    app = build_app(services)
    public = {fn.api_name for fn in app.fns.values() if fn.api_visibility == "public"}
    assert public == {
        "generate",
        "next_ballot",
        "arena",
        "vote",
        "undo_vote",
        "results",
        "study",
        "join_study",
        "leave_study",
        "report_fault",
    }


def test_results_without_votes_say_what_to_do(services: Services) -> None:
    html = results.render(services)
    assert "No votes yet" in html
    assert "20 more make 20" in html


def test_results_show_totals_rates_and_the_way_to_the_next_training(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    services.compare.vote(view.comparison_id, who, Pick("A", "B"))
    html = results.render(services)
    assert "<dd>3</dd><dt>pairwise votes</dt>" in html
    assert html.count('class="npo-row"') == 3 + 3
    assert "17 more make 20" in html
    assert "python -m" not in html, "readers of the results have no shell here"
    assert "npo-section" not in html, "there are pictures alone, which need no name"


def test_picks_on_clips_are_told_apart_from_picks_on_pictures(services: Services) -> None:
    """25 picks on clips are none on pictures; one winner on each side makes two strengths, not an average of both."""
    store, person = services.store, services.store.create_participant()
    for number in range(25):
        ids = add_comparison(store, f"clip {number}", family="tiny", modality="video")
        cast(store, person, ids["base"], ids["aligned"], "right")
    only_clips = results.render(services)
    assert ">Clips</h2>" in only_clips
    assert ">Pictures</h2>" not in only_clips
    ids = add_comparison(store, "picture", family="tiny")
    cast(store, person, ids["base"], ids["aligned"], "left")

    html = results.render(services)
    assert "Pictures: 1 decided pick; 19 more make 20" in html
    assert "Clips: 25 decided picks, enough to retrain" in html
    assert re.findall(r'aria-label="Picks on (.*?) towards a training".*?aria-valuenow="(\d+)"', html) == [
        ("pictures", "1"),
        ("clips", "20"),
    ]
    pictures, clips = html.split(">Clips</h2>")
    assert ">Pictures</h2>" in pictures
    for part, votes, rate in ((pictures, 1, "0%"), (clips, 25, "100%")):
        assert f"<dd>{votes}</dd><dt>pairwise vote" in part
        assert "<b>Aligned</b> against Base</span>" in part
        assert re.findall(r'role="cell"><b>(\d+%)</b>', part) == [rate]
    assert "pictures-results.json" in pictures
    assert "clips-results.json" in clips


def test_a_rate_is_told_from_the_variant_whose_gain_is_asked_for(services: Services) -> None:
    summary = Summary(
        totals=services.store.totals(),
        win_rates=[WinRate("aligned", "aligned_npo", 0.25, 0.1, 0.5, 8)],
        ratings=[Rating("base", 900.0, None, None), Rating("aligned", 1100.0, None, None)],
        position_bias=None,
        agreement=None,
    )
    html = charts.win_rate_chart(summary)
    assert "<b>Aligned + NPO</b> against Aligned" in html
    assert "<b>75%</b> 50% to 90%, 8 votes" in html
    assert "left:75.00%" in html
    assert charts.ratings_chart(summary).index("Aligned") < charts.ratings_chart(summary).index("Base")


def test_the_table_of_about_is_what_the_variants_do(services: Services) -> None:
    table = about.weights_table(1.0, 0.5)
    rows = re.findall(r'<th scope="row">(.*?)</th><td><code>(.*?)</code></td><td><code>(.*?)</code></td>', table)
    assert rows == [
        (VARIANTS["base"].label, "θ", "θ"),
        (VARIANTS["aligned"].label, "θ + η", "θ + η"),
        (VARIANTS["aligned_npo"].label, "θ + η", "θ + η + 0.5·δ"),
    ]


def test_about_shows_one_figure_drawn_from_real_outputs() -> None:
    assert about.FIGURE_FILE.is_file(), "draw it: python -m service.about_figure --out ui/assets/about.png"
    assert "data:image/png;base64," in about.figure()


def test_nothing_is_fetched_from_elsewhere() -> None:
    sheet = theme.style() + theme.head()
    assert not re.findall(r"https?://|@import|url\(", sheet)
    assert not any("google" in str(font).lower() for font in theme.theme()._font)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast_in_light_and_dark(dark: bool) -> None:
    """At least 4.5 to 1 (WCAG 2, level AA) for what is read on a card or on the page."""
    sheet = theme.style()
    block = re.search(r"\.dark \{(.*?)\}" if dark else r":root \{(.*?)\}", sheet, re.DOTALL)
    assert block
    own = dict(re.findall(r"--npo-([a-z-]+): (#[0-9a-f]{6})", block[1]))
    look = vars(theme.theme())
    end = "_dark" if dark else ""
    surfaces = [look[f"background_fill_primary{end}"], look[f"body_background_fill{end}"]]
    pairs = [(look[f"body_text_color{end}"], surface) for surface in surfaces]
    pairs += [(look[f"body_text_color_subdued{end}"], surface) for surface in surfaces]
    pairs += [(own["accent"], own["accent-soft"]), (own["on-accent"], own["accent"]), (own["accent"], surfaces[0])]
    pairs += [(own["warn"], own["warn-soft"]), (own["bad"], own["bad-soft"])]
    for text, ground in pairs:
        light, shade = sorted((_luminance(text), _luminance(ground)), reverse=True)
        assert (light + 0.05) / (shade + 0.05) >= 4.5, f"{text} on {ground}"
