"""The page Vote in a browser: a study with the keyboard alone, speed, undo, zoom, faults, blindness."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request

from collection.store import Store
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from npo_core.media.files import mp4_bytes, open_image
from service.services import Services
from tests.service.helpers import make_services
from tests.ui.in_step import assert_a_video_set_off_is_brought_back
from tests.ui.serving import serving
from tests.ui.visitor import browsing
from tests.ui.voting import UNLOCKED, Voter, fill_study, sha256_of, variant_by_media

pytestmark = pytest.mark.needs("chromium")
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture
def served(services: Services) -> Iterator[tuple[Services, str]]:
    with serving(services) as address:
        yield services, address


def choices(store: Store) -> Counter[str]:
    return Counter(vote.vote.choice for vote in store.exported_votes())


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to hold"
        time.sleep(0.1)


@pytest.mark.parametrize("viewport", [DESKTOP, pytest.param(PHONE, marks=pytest.mark.slow)])
def test_a_study_of_twenty_pairs_is_done_with_the_keyboard_alone(
    served: tuple[Services, str], viewport: tuple[int, int]
) -> None:
    services, address = served
    fill_study(services.store, ballots_per_participant=20, break_every=8, completion_code="DONE")
    with browsing(*viewport) as page:
        voter = Voter(page, address)
        voter.agree()
        assert voter.answer_all("ArrowLeft ArrowRight ArrowDown ArrowUp s") == 22
        assert "DONE" in page.locator("#npo-study").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert choices(services.store) == {"left": 5, "right": 5, "tie": 4, "both_bad": 4, "skip": 4}
    (progress,) = services.store.study_progress()
    assert (progress.participants, progress.finished, progress.faults) == (1, 1, 0)
    times = [vote.vote.response_time_s for vote in services.store.exported_votes()]
    assert all(seconds is not None and 0.04 < seconds < 60 for seconds in times)


MEASURE = """async () => {
  const root = document.getElementById('npo-study'), times = [];
  for (let pair = 0; pair < 8; pair += 1) {
    await new Promise((done) => setTimeout(done, 700));  // a person looks; the next pair is fetched meanwhile
    const shown = root.dataset.shown, started = performance.now();
    document.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
    while (root.dataset.shown === shown) await new Promise(requestAnimationFrame);
    const images = [...root.querySelectorAll('.npo-vote-panel img')];
    times.push(images.every((image) => image.complete && image.naturalWidth) ? performance.now() - started : Infinity);
  }
  return times;
}"""


def test_the_next_pair_is_there_at_once_undo_takes_back_and_zoom_is_the_same_on_both_sides(
    served: tuple[Services, str],
) -> None:
    services, address = served
    fill_study(
        services.store, training=False, break_every=0, check_share=0.0, repeat_share=0.0, ballots_per_participant=20
    )
    with browsing(*DESKTOP) as page:
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_function(UNLOCKED)
        times = page.evaluate(MEASURE)
        print("key press to next pair, ms:", [round(each) for each in times])
        assert sorted(times)[len(times) // 2] < 150

        page.wait_for_function(UNLOCKED)
        wait_until(lambda: sum(choices(services.store).values()) == len(times))
        before = choices(services.store)
        first = voter.ballot_id()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"{UNLOCKED} && document.querySelector('#npo-study').dataset.shown !== '{first}'")
        answered = voter.ballot_id()
        wait_until(lambda: choices(services.store) - before == {"right": 1})
        page.keyboard.press("z")
        wait_until(lambda: choices(services.store) == before)  # the server knows
        page.reload()
        page.wait_for_function(f"{UNLOCKED} && document.querySelector('#npo-study').dataset.shown === '{first}'")
        page.keyboard.press("ArrowDown")
        page.wait_for_function(f"document.querySelector('#npo-study').dataset.shown === '{answered}'")
        page.wait_for_function(UNLOCKED)
        wait_until(lambda: choices(services.store) - before == {"tie": 1})
        assert sum(choices(services.store).values()) == sum(before.values()) + 1

        page.locator(".npo-vote-panel").first.click(position={"x": 30, "y": 40})
        shown = page.evaluate(
            "[...document.querySelectorAll('.npo-vote-panel img')].map((each) => {"
            " const style = getComputedStyle(each); return [style.transform, style.transformOrigin]; })"
        )
        assert shown[0] == shown[1]
        assert shown[0][0] == "matrix(2.5, 0, 0, 2.5, 0, 0)"
        page.locator(".npo-vote-panel").last.click()
        assert page.locator(".npo-vote-panel.zoomed").count() == 0


def test_early_keys_do_nothing_labels_are_read_and_focus_goes_from_left_to_right(served: tuple[Services, str]) -> None:
    services, address = served
    fill_study(services.store, training=False, min_view_s=2.0, tie=False)
    with browsing(*DESKTOP) as page:
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_selector(".npo-vote-pair")
        page.keyboard.press("ArrowLeft")
        assert choices(services.store) == {}
        page.wait_for_function(UNLOCKED)
        order = []
        for _ in range(8):
            page.keyboard.press("Tab")
            order.append(
                page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText.split('\\n')[0]")
            )
        wanted = [
            "Left: enlarge both at the same place",
            "Right: enlarge both at the same place",
            "Left",
            "Both bad",
            "Right",
        ]
        assert [name for name in order if name in wanted] == wanted
        assert page.get_by_role("img", name="Left picture").count() == 1
        assert page.locator("#npo-vote-live").inner_text().startswith("Pair 1 of")
        assert page.locator("[data-choice=tie]").count() == 0
        page.keyboard.press("ArrowDown")
        page.wait_for_timeout(200)
        assert choices(services.store) == {}


def test_a_picture_that_does_not_load_is_our_fault_and_can_be_skipped(served: tuple[Services, str]) -> None:
    services, address = served
    fill_study(services.store, training=False, ballots_per_participant=2, check_share=0.0, repeat_share=0.0)

    def spoil(route: Any) -> None:
        answer = route.fetch()
        told = answer.json()
        told["data"][0]["left"] = "data:image/png;base64,bm90aGluZw=="
        route.fulfill(response=answer, json=told)

    with browsing(*DESKTOP) as page:
        page.route("**/run/next_ballot", spoil, times=1)
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_selector("text=It is our fault")
        page.wait_for_function(UNLOCKED)
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("s")
        page.wait_for_selector(".npo-vote-pair")
    assert services.store.study_progress()[0].faults >= 1
    (vote,) = [exported.vote for exported in services.store.exported_votes()]
    assert (vote.choice, vote.response_time_s) == ("skip", None)


def test_a_lost_connection_loses_no_answer_and_a_reload_goes_on(served: tuple[Services, str]) -> None:
    services, address = served
    fill_study(services.store, training=False, ballots_per_participant=6, check_share=0.0, repeat_share=0.0)
    with browsing(*DESKTOP) as page:
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_function(UNLOCKED)
        page.route("**/run/vote", lambda route: route.abort())
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("text=your answers are kept")
        page.unroute("**/run/vote")
        page.reload()
        page.wait_for_function(UNLOCKED)
        assert choices(services.store) == {"right": 1}
        assert "2 of 6" in page.locator("#npo-study").inner_text()
        assert services.store.study_progress()[0].participants == 1


@pytest.mark.parametrize(("fps", "by_s"), [(8.0, 1.0), (24.0, 0.055)])
def test_clips_play_together_and_space_stops_them(
    served: tuple[Services, str], monkeypatch: pytest.MonkeyPatch, fps: float, by_s: float
) -> None:
    """Needs a Chromium that plays H.264. 0.055 s is less than half a frame at 8 fps, and more than one at 24."""
    import tests.ui.voting as voting

    services, address = served
    still = voting.picture
    monkeypatch.setattr(voting, "picture", lambda item, place: mp4_bytes([open_image(still(item, place))] * 16, fps))
    monkeypatch.setattr(voting, "MEDIA_TYPE", "video/mp4")
    monkeypatch.setattr(voting, "FPS", fps)
    fill_study(services.store, training=False, modality="video", check_share=0.0)
    with browsing(*DESKTOP) as page:
        if not page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.640028\"')"):
            pytest.skip("this Chromium plays no H.264")
        voter = Voter(page, address)
        voter.agree()
        page.wait_for_function(UNLOCKED)
        clips = "[...document.querySelectorAll('.npo-vote-panel video')]"
        page.wait_for_function(
            f"{clips}.length === 2 && {clips}.every((clip) => !clip.paused && clip.currentTime > 0.1)"
        )
        assert_a_video_set_off_is_brought_back(page, ".npo-vote-panel video", 1 / fps, by_s)
        page.keyboard.press(" ")
        page.wait_for_function(f"{clips}.every((clip) => clip.paused)")
        page.keyboard.press("ArrowLeft")
        wait_until(lambda: choices(services.store) == {"left": 1})


# Blindness


class Recorder:
    """Everything that reaches or leaves a browser: addresses, headers, bodies."""

    def __init__(self, page: Page) -> None:
        self._finished: list[Request] = []
        self.entries: list[tuple[str, str, str, bytes]] = []
        page.on("requestfinished", lambda request: self._finished.append(request))

    def read(self) -> None:
        """Fetches what was recorded (not while it happens: Playwright waits for the handler then)."""
        for request in self._finished:
            response = request.response()
            assert response is not None
            # The length is that of the body, which is compared itself and holds clocks of varying digits.
            kept = {name: value for name, value in response.headers.items() if name not in ("date", "content-length")}
            headers = json.dumps(sorted(kept.items()))
            self.entries.append((request.url, request.post_data or "", headers, response.body()))

    def answers(self, endpoint: str) -> list[dict[str, Any]]:
        return [json.loads(body)["data"][0] for url, _, _, body in self.entries if url.endswith(f"/run/{endpoint}")]


def traffic_of_a_whole_study(folder: Path, family: ModelFamily, generator: Generator, variants: tuple[str, ...]) -> Any:
    """(recorded traffic, the store) of one person who always answers left."""
    services = make_services(folder, family, generator)
    fill_study(services.store, variants=variants, ballots_per_participant=8, seed=5)
    with serving(services) as address, browsing(*DESKTOP) as page:
        recorder = Recorder(page)
        voter = Voter(page, address)
        voter.agree()
        voter.answer_all()
        recorder.read()
    return recorder, services.store


VARYING = re.compile(
    r"[0-9a-f]{32}\.[0-9a-f]{64}|[0-9a-f]{32}|127\.0\.0\.1:\d+|[A-Z2-9]{5}-[A-Z2-9]{5}|"
    r'"(?:duration|average_duration|durations?)":[^,}]*|\d+\.\d{3,}(?:e-?\d+)?|'
    r'(?<="",)\d+(?:\.\d+)?(?=\]\})'  # how long a vote took, whatever its digits
)


def told(recorder: Recorder) -> dict[str, list[tuple[str, ...]]]:
    """The study's own messages by endpoint, with ids, ports, codes and clocks blanked: what is left may depend on the
    pictures. (A vote and the next fetch may be under way together, so only the order at one endpoint is certain.)"""
    messages: dict[str, list[tuple[str, ...]]] = {}
    for url, posted, headers, body in recorder.entries:
        if "/gradio_api/run/" in url:
            blanked = tuple(VARYING.sub("#", part) for part in (url, posted, headers, body.decode()))
            messages.setdefault(url.rpartition("/")[2], []).append(blanked)
    return messages


@pytest.mark.slow
def test_all_traffic_is_the_same_when_the_variants_change_places(
    tmp_path: Path, family: ModelFamily, generator: Generator
) -> None:
    """Two studies with the same pictures, whose variants' names are exchanged. Whatever told a variant apart (a name,
    an order, a size, a field, an address, how many messages) would differ between the recordings; nothing does."""
    names = ("aligned", "aligned_npo", "base")
    one, one_store = traffic_of_a_whole_study(tmp_path / "one", family, generator, names)
    other, other_store = traffic_of_a_whole_study(tmp_path / "other", family, generator, names[1:] + names[:1])
    assert told(one) == told(other)
    assert len(one.answers("vote")) == 10
    before, after = variant_by_media(one_store), variant_by_media(other_store)
    shown = [
        sha256_of(pair[side]) for pair in one.answers("next_ballot") if pair["ballot_id"] for side in ("left", "right")
    ]
    assert {before[sha256] == after[sha256] for sha256 in shown if after[sha256] in names} == {False}

    whole = "\n".join(f"{url} {posted} {headers}" for url, posted, headers, _ in one.entries)
    bodies = [body for url, _, _, body in one.entries if "/gradio_api/run/" in url]
    said = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", whole + b"\n".join(bodies).decode())
    said = said.replace("base-uri", "")  # a directive of the content security policy, in every answer alike
    with one_store.reading() as session:
        made = (
            session.connection().exec_driver_sql("SELECT id, media_sha256, comparison_id, seed FROM generations").all()
        )
    secrets = {str(value) for row in made for value in row} | {*names, "degraded", "repeat", "check", "/media/"}
    assert [secret for secret in secrets if secret in said] == []

    pairs = [pair for pair in one.answers("next_ballot") if pair["ballot_id"]]
    for pair in pairs:
        for side in ("left", "right"):
            assert png_chunks(base64.b64decode(pair[side].partition(",")[2])) == {"IHDR", "IDAT", "IEND"}
    assert {before[sha256_of(pair["left"])] < before[sha256_of(pair["right"])] for pair in pairs} == {True, False}


def png_chunks(data: bytes) -> set[str]:
    """The kinds of chunks in a PNG file; nothing may stand behind the last."""
    chunks, place = set(), 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.add(data[place + 4 : place + 8].decode())
        place += 12 + length
    assert place == len(data)
    return chunks
