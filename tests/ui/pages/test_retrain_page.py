"""The page Retrain: its handlers as plain functions, and in a browser from the password to the picture in use."""

from __future__ import annotations

import gradio as gr
import pytest

from service.services import Services
from service.training.retrain import RunView
from tests.ui.serving import serving
from tests.ui.visitor import browsing
from ui.pages import retrain


def test_a_stranger_sees_and_does_nothing(services: Services) -> None:
    assert retrain.refresh(services.retrain, None, "negative") == (gr.skip(),) * 5
    for notice in (
        retrain.begin(services.retrain, "made up", "negative", None),
        retrain.end(services.retrain, None),
        retrain.put_to_use(services.retrain, None),
        retrain.take_back(services.retrain, None, "negative"),
    ):
        assert "You are not signed in" in notice


def test_the_right_password_opens_the_workshop_and_a_wrong_one_does_not(services: Services) -> None:
    token, notice, _, door, workshop, _ = retrain.sign_in(services.retrain, "wrong")
    assert token is None
    assert "not the password" in notice
    assert door == workshop == gr.skip()
    token, notice, _, door, workshop, timer = retrain.sign_in(services.retrain, "right password")
    assert (notice, door["visible"], workshop["visible"]) == ("", False, True)
    assert timer.active
    news, run, *_ = retrain.refresh(services.retrain, token, "negative")
    assert "<dd>0</dd><dt>new since the last training</dt>" in news
    assert "No training was started" in run


def test_what_a_run_says_is_escaped() -> None:
    html = retrain.run_html(RunView("failed", log="error: <script>alert(1)</script>"))
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
    assert "<details open>" in html


def test_curves_are_drawn_for_what_was_measured() -> None:
    rows = ({"step": 10.0, "loss": 0.7}, {"step": 20.0, "loss": 0.6, "held_out_loss": 0.65})
    html = retrain.curve(rows, ("loss", "held_out_loss"))
    assert 'points="150.0,0.0 300.0,100.0"' in html
    assert "held out loss <b>0.650</b>" in html
    assert retrain.curve(rows, ("accuracy",)) == ""


def test_without_a_password_the_page_says_that_it_is_off() -> None:
    assert "NPO_ADMIN_PASSWORD" in retrain._door_text(takes_password=False, on_space=False)


@pytest.mark.needs("chromium")
def test_the_password_opens_the_workshop_in_a_browser(services: Services) -> None:
    with serving(services) as address, browsing() as page:
        page.goto(f"{address}retrain")
        page.locator("#npo-password input").fill("wrong")
        page.click("#npo-enter")
        page.wait_for_selector("#npo-retrain-notice [role=alert]")
        assert not page.locator("#npo-start").is_visible()
        page.locator("#npo-password input").fill("right password")
        page.click("#npo-enter")
        page.wait_for_selector("#npo-start", state="visible")
        assert not page.locator("#npo-password").is_visible()
