from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from npo_core.variants import DEFAULT_VARIANTS
from service.generation.adapters_in_use import NEWEST
from service.services import Services
from tests.service.helpers import register
from ui.components import versions
from ui.components.panels import revealed_panels
from ui.components.vote_cards import NO_DIFFERENCE, NO_WORST, details_html, read_pick, slider_choices, slider_images
from ui.live import follow
from ui.pages import compare_handlers as handlers
from ui.pages.compare_handlers import KEEP, Screen


def screens(services: Services, prompt: str = "a red apple", seed: str = "7", *settings: Any) -> list[Screen]:
    return list(handlers.generate(services, "", NEWEST, NEWEST, prompt, seed, *settings))


def show(services: Services) -> tuple[str, str, str]:
    """(participant, comparison id, the stage's HTML) of a finished comparison."""
    first, *_, last = screens(services, seed="")
    return first.participant, last.comparison_id, last.stage


def test_a_generation_streams_a_start_every_step_and_the_question(services: Services) -> None:
    first, *steps, last = screens(services)
    assert first.generate["interactive"] is False
    assert [re.search(r"Step (\d) of (\d)", screen.stage).groups() for screen in steps] == [  # type: ignore[union-attr]
        ("1", "3"),
        ("2", "3"),
        ("3", "3"),
    ]
    assert "<img" in steps[-1].stage
    assert last.vote_card["visible"] is True
    assert last.generate["interactive"] is True
    assert last.comparison_id


def test_before_the_pick_the_panels_differ_in_letter_and_picture_only(services: Services) -> None:
    stage = show(services)[2]
    figures = re.findall(r"<figure.*?</figure>", stage)
    assert len(figures) == 3
    bare = set()
    for letter, figure in zip("ABC", figures, strict=True):
        without_picture = re.sub(r'src="data:image/png;base64,[^"]+"', "", figure)
        bare.add(without_picture.replace(f"panel-{letter.lower()}", "panel-x").replace(letter, "X"))
    assert len(bare) == 1
    assert not any(name in bare.copy().pop() for name in (*DEFAULT_VARIANTS, "npo-badge", "negative"))


@pytest.mark.parametrize(
    ("prompt", "seed", "settings", "words"),
    [
        ("", "7", (), "The prompt is empty"),
        ("x" * 400, "7", (), "shorten it"),
        ("a cat", "-1", (), "The seed is -1"),
        ("a cat", "99999999999999999999", (), "The seed is 99999999999999999999"),
        ("a cat", "dice", (), "The seed is &#x27;dice&#x27;"),
        ("a cat", "7", ("", 0.0), "The number of steps is 0"),
        ("a cat", "7", ("", 2.5), "The number of steps is 2.5"),
        ("a cat", "7", ("", None, 1.0), "guidance"),
    ],
)
def test_a_mistake_is_one_sentence_on_the_page_and_the_button_works_again(
    services: Services, prompt: str, seed: str, settings: tuple[Any, ...], words: str
) -> None:
    last = screens(services, prompt, seed, *settings)[-1]
    assert words in last.notice
    assert 'role="alert"' in last.notice
    assert last.generate == gr.update(interactive=True, value="Generate")
    assert last.vote_card["visible"] is False
    assert screens(services)[-1].vote_card["visible"] is True


def test_a_fault_of_ours_is_told_as_such_and_logged(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(services.store, "add_generations", fail)
    last = screens(services)[-1]
    assert handlers.FAULT.replace("'", "&#x27;") in last.notice
    assert "on fire" not in last.notice
    assert "the disk is on fire" in caplog.text


def test_saving_a_pick_names_the_panels_and_thanks(services: Services) -> None:
    who, comparison_id, stage = show(services)
    screen = handlers.vote(services, who, comparison_id, "B", "C")
    assert "Thank you, your pick is saved." in screen.verdict
    assert all(label in screen.stage for label in ("Base", "Aligned", "Aligned + NPO"))
    assert re.findall(r'src="([^"]+)"', screen.stage) == re.findall(r'src="([^"]+)"', stage)
    assert services.store.totals().votes == 3


def test_a_pick_without_a_best_is_one_sentence_and_nothing_is_stored(services: Services) -> None:
    who, comparison_id, _ = show(services)
    screen = handlers.vote(services, who, comparison_id, None, NO_WORST)
    assert "No best panel was chosen" in screen.vote_notice
    assert screen.stage is KEEP
    assert services.store.totals().votes == 0


def test_undo_takes_the_pick_back_and_a_second_one_is_marked_as_not_blind(services: Services) -> None:
    who, comparison_id, _ = show(services)
    revealed = handlers.vote(services, who, comparison_id, "A", NO_WORST).revealed
    screen = handlers.undo(services, who, comparison_id, revealed)
    assert services.store.totals().votes == 0
    assert screen.vote_card["visible"] is True
    assert "not blind" in screen.vote_notice
    assert "Saved as not blind" in handlers.vote(services, who, comparison_id, NO_DIFFERENCE, NO_WORST).verdict


def test_the_slider_starts_with_the_base_against_npo_and_follows_the_choice(services: Services) -> None:
    who, comparison_id, _ = show(services)
    revealed = handlers.vote(services, who, comparison_id, "A", NO_WORST).revealed
    left, right = slider_choices(revealed)
    assert (left["value"], right["value"]) == ("base", "aligned_npo")
    assert [value for _, value in left["choices"]] == ["base", "aligned", "aligned_npo"]
    first, second = slider_images(revealed, "base", "aligned_npo")
    assert first.size == second.size
    assert first.tobytes() != second.tobytes()
    assert slider_images(None, "base", "aligned") == gr.skip()


def test_the_downloads_are_a_picture_and_a_record(services: Services) -> None:
    who, comparison_id, _ = show(services)
    revealed = handlers.vote(services, who, comparison_id, "A", NO_WORST).revealed
    html = details_html(revealed)
    assert re.search(r'href="data:image/png;base64,[^"]+" download="comparison-seed-\d+.png"', html)
    assert re.search(r'href="data:application/json;base64,[^"]+" download="comparison-seed-\d+.json"', html)


def test_what_a_visitor_typed_is_shown_as_text_not_run_as_html(services: Services) -> None:
    first, *_, last = screens(services, "<img src=x onerror=alert(1)>")
    revealed = handlers.vote(services, first.participant, last.comparison_id, "A", NO_WORST).revealed
    html = details_html(revealed) + revealed_panels(revealed)
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "<img src=x" not in html


def test_picks_are_read_from_the_two_rows_of_chips() -> None:
    assert read_pick("A", NO_WORST).worst is None
    assert read_pick("A", "C").worst == "C"
    assert read_pick(NO_DIFFERENCE, NO_WORST).no_difference
    assert read_pick(None, None).best is None


def test_a_new_version_appears_in_the_lists_and_in_the_line(services: Services, tmp_path: Path) -> None:
    *_, seen = versions.refresh(services.shelf, None)
    assert versions.refresh(services.shelf, seen) == (gr.skip(),) * 4
    register(services, tmp_path, "negative", 11, "NPO <24> picks")
    _, negative, line, ids = versions.refresh(services.shelf, seen)
    assert negative["choices"][0] == ("In use (NPO <24> picks)", NEWEST)
    assert "NPO &lt;24&gt; picks" in line
    assert ids != seen


def test_a_version_that_was_passed_over_is_told_and_pictures_come_all_the_same(
    services: Services, tmp_path: Path
) -> None:
    record = register(services, tmp_path, "negative", 11, "bad")
    Path(record.path).write_bytes(b"no safetensors")
    last = screens(services)[-1]
    assert "The version before it is used." in last.notice
    assert "Shipped with the model" in last.in_use
    assert last.vote_card["visible"] is True


def test_an_exception_in_the_background_reaches_the_handler() -> None:
    def run(_on_step: Any, _on_wait: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(follow(run))
