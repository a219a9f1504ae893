from __future__ import annotations

from pathlib import Path
from typing import Any

from service.services import Services
from ui.components.grid import draw_grid

SETTINGS: tuple[Any, ...] = ("", 1, 4.0, 1.0, 1.0, "ddim")


def last(services: Services, alphas: str, betas: str, prompt: str = "a red apple") -> tuple[list[str], bool]:
    """What was shown, and whether the button can be pressed again."""
    shown = list(draw_grid(services, "", alphas, betas, "", "", prompt, "7", *SETTINGS))
    return [html for html, *_ in shown], shown[-1][1]["interactive"]


def test_a_grid_says_what_it_does_and_then_shows_every_alpha_and_beta(services: Services, tmp_path: Path) -> None:
    shown, ready = last(services, "0, 1", "0, 0.5, 1")
    assert "Drawing 6 pictures in one batch" in shown[0]
    assert "data:image/png;base64," in shown[1]
    assert "data-enlarge" in shown[1]
    assert ready
    assert not list(tmp_path.rglob("*.png")), "nothing about it is blind, so nothing is stored"


def test_mistakes_get_one_sentence_and_the_button_back(services: Services) -> None:
    for alphas, betas, sentence in (
        ("none", "0", "The list of alphas is &#x27;none&#x27;; give numbers"),
        ("0", "9", "Beta is 9.0"),
        (",".join(map(str, range(9))), ",".join(map(str, range(9))), "has 81 pictures; ask for 1 to 48"),
    ):
        shown, ready = last(services, alphas, betas)
        assert sentence in shown[-1]
        assert ready
    assert "The prompt is empty" in last(services, "0", "0", prompt="")[0][-1]
