"""Clips on the Compare page: what the handlers draw, and the whole way in a browser, from the switch to an adapter."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import expect

from npo_core.catalog.families import ModelFamily
from npo_core.catalog.prompts import load_guide
from npo_core.media.files import open_clip
from npo_core.variants import DEFAULT_VARIANTS
from service.arena.strip import strip_clips
from service.generation.adapters_in_use import NEWEST
from service.services import Services
from tests.service.helpers import register
from tests.ui.in_step import assert_a_video_set_off_is_brought_back
from tests.ui.serving import ROOT, serving
from tests.ui.visitor import Visitor, browsing
from ui.components import request_from_form, versions
from ui.components.vote_cards import NO_WORST, details_html, slider_images
from ui.pages import compare_handlers as handlers
from ui.pages.compare_handlers import Screen

CLIP = ("", None, None, None, None, None, "video", 3, 6.0)


def screens(services: Services, *settings: Any) -> list[Screen]:
    return list(handlers.generate(services, "", NEWEST, NEWEST, "a red apple", "7", *settings))


def test_blind_clips_differ_in_letter_and_content_only_and_have_one_control(services: Services) -> None:
    *_, last = screens(services, *CLIP)
    figures = re.findall(r"<figure.*?</figure>", last.stage)
    bare = set()
    for letter, figure in zip("ABC", figures, strict=True):
        told = re.sub(r'"data:[^"]+"', "", figure)
        bare.add(re.sub(rf"\b{letter}\b", "X", told.replace(f"panel-{letter.lower()}", "panel-x")))
    assert len(bare) == 1
    assert not any(name in last.stage.split("base64")[0] for name in DEFAULT_VARIANTS)
    clips = [base64.b64decode(found) for found in re.findall(r'data-clip="data:video/mp4;base64,([^"]+)"', last.stage)]
    assert [len(open_clip(clip)) for clip in clips] == [3, 3, 3]
    assert len(set(clips)) == 3
    assert last.stage.count("data-clip-do=") == 4
    assert last.stage.count('data-film="3"') == 3
    assert "These clips were made with" in last.in_use


def test_a_pick_on_clips_is_a_vote_with_modality_video(services: Services) -> None:
    first, *_, last = screens(services, *CLIP)
    screen = handlers.vote(services, first.participant, last.comparison_id, "B", NO_WORST)
    assert all(label in screen.stage for label in ("Base", "Aligned", "Aligned + NPO"))
    assert "npo-badge-best" in screen.stage
    assert sum(count.total for count in services.store.vote_counts(modality="video", blind_only=False)) == 2
    assert sum(count.total for count in services.store.vote_counts(modality="image", blind_only=False)) == 0
    stored = services.store.comparison(last.comparison_id)
    assert {(made.modality, made.frames, made.fps, made.media_type) for made in stored} == {
        ("video", 3, 6.0, "video/mp4")
    }
    assert services.store.vote_counts(modality="video") == [], "with a length of our own it is the workbench"
    (pair, _) = services.store.preference_pairs("tiny", modality="video", blind_only=False).pairs
    assert pair.preferred_latents.shape == (3, 4, 8, 8)


def test_revealed_clips_are_compared_and_downloaded_in_every_format(services: Services) -> None:
    first, *_, last = screens(services, *CLIP)
    revealed = handlers.vote(services, first.participant, last.comparison_id, "A", NO_WORST).revealed
    strips = strip_clips(revealed)
    assert strips.keys() == {"mp4", "gif", "webp"}
    frames = open_clip(strips["mp4"][1])
    assert len(frames) == 3
    assert frames[0].width > 3 * 256
    html = details_html(revealed)
    assert re.findall(r'download="comparison-seed-7\.(\w+)"', html) == ["mp4", "gif", "webp", "json"]
    assert "3 at 6 a second" in html
    one, other = slider_images(revealed, "base", "aligned_npo")
    assert one.size == other.size
    assert one.tobytes() != other.tobytes()


def test_clips_keep_versions_of_their_own(services: Services, tmp_path: Path) -> None:
    register(services, tmp_path, "negative", 11, "of clips", "video")
    _, pictures, line, seen = versions.refresh(services.shelf, None, "image")
    assert len(pictures["choices"]) == 2
    assert "Next pictures are made with" in line
    _, clips, line, now = versions.refresh(services.shelf, seen, "video")
    assert clips["choices"][0] == ("In use (of clips)", NEWEST)
    assert clips["value"] == NEWEST
    assert "Next clips are made with" in line
    assert versions.refresh(services.shelf, now, "video") == (gr.skip(),) * 4
    assert "of clips" in screens(services, *CLIP)[-1].in_use
    assert "of clips" not in screens(services)[-1].in_use


def test_a_form_keeps_a_clips_length_from_pictures() -> None:
    assert request_from_form.build_request("a cat", 1, modality="video", frames=8.0, fps=6.0).frames == 8
    picture = request_from_form.build_request("a cat", 1, modality="image", frames=8.0, fps=6.0)
    assert (picture.frames, picture.fps) == (None, None)


def test_the_switch_puts_a_motion_into_the_prompt_and_takes_it_out(family: ModelFamily) -> None:
    guide = load_guide(str(family.guide))
    moving = request_from_form.for_modality(guide, "a red apple, 3d style", "video")
    assert moving == "a red apple bouncing, 3d style"
    assert request_from_form.for_modality(guide, "a cat sliding left", "video") == "a cat sliding left"
    assert request_from_form.for_modality(guide, moving, "image") == "a red apple, 3d style"
    assert request_from_form.named_motion(moving, guide) == "bouncing"
    assert request_from_form.with_motion(guide, moving, request_from_form.ANY) == "a red apple, 3d style"


@pytest.fixture
def visitor(services: Services) -> Iterator[Visitor]:
    with serving(services) as address, browsing() as page:
        yield Visitor(page, address)


SAMPLE_TIMES = """async () => {
  const videos = [...document.querySelectorAll("video[data-clip]")], seen = [];
  for (let i = 0; i < 60; i++) {
    await new Promise(requestAnimationFrame);
    seen.push([...videos.map((video) => video.currentTime), videos[0].duration]);
  }
  return seen;
}"""


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_clips_play_in_step_are_picked_train_a_model_and_the_next_clip_uses_it(
    visitor: Visitor, services: Services, tmp_path: Path
) -> None:
    page = visitor.page
    page.locator('#npo-modality input[value="video"]').check()
    prompt = page.locator("#npo-prompt").locator("input, textarea")
    expect(prompt).to_have_value("a red apple bouncing, 3d style")
    visitor.generate("a red apple bouncing, 3d style", 7)
    page.wait_for_selector(".npo-clips[data-ready]")

    frame_s = page.evaluate("document.querySelector('video[data-clip]').duration") / 4
    assert_a_video_set_off_is_brought_back(page, "video[data-clip]", frame_s, by_s=2 * frame_s)
    times = page.evaluate(SAMPLE_TIMES)
    in_step = [max(abs((t - lead + d / 2) % d - d / 2) for t in others) for lead, *others, d in times]
    assert sorted(in_step)[-3] <= frame_s, "all within a frame, but for the moment of a seek"
    assert len({round(lead, 3) for lead, *_ in times}) > 10, "they move"
    assert page.evaluate("[...document.querySelectorAll('video')].every((v) => v.muted && v.loop && !v.paused)")

    page.get_by_label("Pause").click()
    page.locator('[data-clip-do="scrub"]').fill("1")
    expect(page.locator(".npo-clip-frame")).to_have_text("2 / 4")
    page.get_by_label("One frame forward").click()
    expect(page.locator(".npo-clip-frame")).to_have_text("3 / 4")
    page.click(".npo-films summary")
    page.locator("[data-film]").first.click(position={"x": 5, "y": 5})
    expect(page.locator(".npo-clip-frame")).to_have_text("1 / 4")
    still = page.evaluate("[...document.querySelectorAll('video')].map((video) => video.currentTime)")
    assert max(still) - min(still) < 0.001
    page.get_by_label("Play").click()

    visitor.pick("B", "C")
    assert "2, ddim" in page.locator("#npo-details").inner_text(), "the steps that clips look best at"
    before = clips_by_name(visitor)
    assert set(before) == {"Base", "Aligned", "Aligned + NPO"}
    votes = services.store.preference_pairs("tiny", modality="video").pairs
    assert len(votes) == 3

    assert train(services, tmp_path).returncode == 0
    visitor.wait_for_line("NPO from 3 picks")
    visitor.generate("a red apple bouncing, 3d style", 7)
    visitor.pick("no_difference")
    after = clips_by_name(visitor)
    assert {name: after[name] == before[name] for name in after} == {
        "Base": True,
        "Aligned": True,
        "Aligned + NPO": False,
    }
    page.locator('#npo-modality input[value="image"]').check()
    expect(prompt).to_have_value("a red apple, 3d style")
    visitor.wait_for_line("Shipped with the model")


def clips_by_name(visitor: Visitor) -> dict[str, str]:
    """What stands under each clip -> its bytes."""
    figures = visitor.page.locator(".npo-panel").all()
    return {
        figure.locator(".npo-variant").inner_text(): figure.locator("video").get_attribute("data-clip") or ""
        for figure in figures
    }


def train(services: Services, folder: Path) -> subprocess.CompletedProcess[str]:
    """`train.npo --from-db --modality video` in a process of its own, on the services' database and family."""
    code = (
        "import sys; from pathlib import Path; from npo_core import families; from train.npo import main; "
        "from tests.tiny import tiny_settings; "
        f"families.FAMILIES['tiny'] = tiny_settings(Path({str(services.family.base)!r})); "
        "sys.exit(main(sys.argv[1:]))"
    )
    where = [
        "--from-db",
        "--modality",
        "video",
        "--family",
        "tiny",
        "--database-url",
        services.store.url.render_as_string(),
    ]
    how = ["--data-dir", str(folder), "--max-train-steps", "3", "--min-pairs", "3", "--learning-rate", "0.05"]
    return subprocess.run(
        [sys.executable, "-c", code, *where, *how, "--device", "cpu", "--mixed-precision", "no"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        text=True,
    )
