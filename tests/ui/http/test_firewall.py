"""What is open over HTTP and what is not, what every answer carries, and that refused votes are counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pythonjsonlogger.json import JsonFormatter

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from service.services import Services
from tests.service.helpers import REQUEST, make_services
from tests.ui.serving import serving
from tests.ui.visitor import browsing
from tests.ui.voting import fill_study
from ui.http.firewall import HEADERS, LARGEST_BODY

ELSEWHERE = "https://evil.example"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, family: ModelFamily, generator: Generator
) -> Iterator[tuple[Services, httpx.Client]]:
    services = make_services(tmp_path_factory.mktemp("door"), family, generator)
    fill_study(services.store, prompts=4, ballots_per_participant=4)
    who = services.visitors.named(None)
    services.compare.compare(REQUEST, who)  # for the pool
    with serving(services) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield services, client


def run(client: httpx.Client, name: str, *data: Any) -> httpx.Response:
    return client.post(f"gradio_api/run/{name}", json={"data": list(data)})


def refused(client: httpx.Client) -> dict[str, float]:
    """reason -> how many votes were refused for it."""
    text = client.get("metrics").text
    return {
        reason: float(count) for reason, count in re.findall(r'npo_votes_refused_total\{reason="(\w+)"\} (\S+)', text)
    }


def newly(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {reason: after[reason] - count for reason, count in before.items() if after[reason] != count}


@pytest.mark.parametrize(
    "path", ["", "vote", "results", "config", "metrics", "healthz", "gradio_api/upload", "nowhere"]
)
def test_every_answer_carries_the_headers_and_lets_no_other_site_read(
    running: tuple[Services, httpx.Client], path: str
) -> None:
    answer = running[1].get(path, headers={"Origin": ELSEWHERE})
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert "frame-ancestors 'self' https://huggingface.co" in answer.headers["content-security-policy"]


def test_another_site_may_not_even_ask(running: tuple[Services, httpx.Client]) -> None:
    asking = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "POST"}
    answer = running[1].options("gradio_api/run/vote", headers=asking)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    plain = running[1].post("gradio_api/run/vote", content=b'{"data": []}', headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415


@pytest.mark.parametrize(
    "path",
    [
        *("gradio_api/upload", "gradio_api/proxy=https://x.hf.space/", "gradio_api/component_server", "upload"),
        *("gradio_api/vibe-edit", "gradio_api/process_recording", "gradio_api/deep_link", "monitoring", "docs"),
        *("monitoring/summary", "gradio_api/dev/reload", "gradio_api/custom_component/a/client/b/c.js", "openapi.json"),
        *("gradio_api/file=/etc/passwd", "gradio_api/file=https://example.com/", "gradio_api/file/etc/passwd"),
        *("file=/etc/passwd", "gradio_api/file=app.py", "gradio_api/file=/proc/self/environ", "gradio_api/runs"),
    ],
)
def test_what_no_page_needs_is_closed(running: tuple[Services, httpx.Client], path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert running[1].request(method, path, files={"files": b"x"} if method == "POST" else None).status_code == 404


def test_no_way_leads_to_a_file(running: tuple[Services, httpx.Client]) -> None:
    services, client = running
    secret = Path(services.store.url.database or "").parent / "participant_secret"
    secret.write_text("root:")
    up = "..%2f" * 10
    for path in (
        f"gradio_api/file={secret}",
        f"gradio_api/file={services.store.url.database}",
        f"gradio_api/file=/tmp/gradio/{up}etc/passwd",
        f"assets/{up}etc/passwd",
        f"static/{up}etc/passwd",
        f"svelte/{up}etc/passwd",
        f"gradio_api/file=%2e%2e/{up}etc/passwd",
    ):
        answer = client.get(path)
        assert answer.status_code in (403, 404), path
        assert "root:" not in answer.text


def test_a_long_body_is_not_read_to_its_end(running: tuple[Services, httpx.Client]) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * LARGEST_BODY

    headers = {"Content-Type": "application/json"}
    assert running[1].post("gradio_api/run/vote", content=b"1" * (LARGEST_BODY + 1), headers=headers).status_code == 413
    with suppress(httpx.TransportError):  # the server hung up on it
        assert running[1].post("gradio_api/run/vote", content=endless(), headers=headers).status_code == 413


def test_health_and_metrics_tell_the_state_and_nobody(running: tuple[Services, httpx.Client]) -> None:
    services, client = running
    told = client.get("healthz").json()
    assert (told["live"], told["ready"], told["database"], told["model"]) == (True, True, "reachable", "ready")
    assert (told["waiting"], told["waiting_limit"]) == (0, services.compare.desk.most)
    assert told["versions"]["gradio"]
    assert client.get("healthz/live").json() == {"live": True}
    who = run(client, "next_ballot").json()["data"][0]["participant_id"]
    metrics = client.get("metrics").text
    assert "npo_ready 1.0" in metrics
    assert 'npo_http_requests_total{route="/gradio_api/run/next_ballot",status="200"}' in metrics
    assert who not in metrics
    assert not any(word in metrics for word in ("aligned", "127.0.0.1", "red apple"))


def test_a_vote_that_nobody_may_give_is_refused_and_counted(running: tuple[Services, httpx.Client]) -> None:
    services, client = running
    shown = run(client, "next_ballot").json()["data"][0]
    ballot, who = shown["ballot_id"], shown["participant_id"]
    stranger = run(client, "next_ballot").json()["data"][0]["participant_id"]
    part = run(client, "join_study", "pilot", "1", "", {}).json()["data"][0]["participant_id"]
    pair = run(client, "next_ballot", part, "pilot").json()["data"][0]
    attacks = (
        ("unknown_ballot", "0" * 32, "left", who),
        ("unknown_ballot", f"pair-{'0' * 32}", "left", who),
        ("not_yours", ballot[:-1] + ("0" if ballot[-1] != "0" else "1"), "left", who),
        ("not_yours", ballot, "left", stranger),
        ("forged_token", pair["ballot_id"], "left", f"{part[:-1]}x"),
        ("forged_token", pair["ballot_id"], "left", who),
    )
    for reason, *sent in attacks:
        before, votes = refused(client), services.store.totals().votes
        answer = run(client, "vote", *sent)
        assert (answer.status_code, set(answer.json())) == (403, {"error"})
        assert newly(before, refused(client)) == {reason: 1.0}
        assert services.store.totals().votes == votes
    first = run(client, "vote", ballot, "left", who)
    assert run(client, "vote", ballot, "left", who).json() == first.json(), "the same again is a retry"
    before, votes = refused(client), services.store.totals().votes
    assert "names were told" in run(client, "vote", ballot, "right", who).json()["error"]
    assert newly(before, refused(client)) == {"answered": 1.0}
    assert services.store.totals().votes == votes


def test_more_votes_than_anybody_can_give_are_put_off(running: tuple[Services, httpx.Client]) -> None:
    _, client = running
    shown = run(client, "next_ballot").json()["data"][0]
    answers = [run(client, "vote", shown["ballot_id"], "tie", shown["participant_id"]) for _ in range(130)]
    assert [answer.status_code for answer in answers[:120]] == [200] * 120
    assert [answer.status_code for answer in answers[120:]] == [429] * 10
    assert answers[-1].headers["retry-after"] == "30"


def test_logs_are_json_and_tell_nobody(
    running: tuple[Services, httpx.Client], caplog: pytest.LogCaptureFixture
) -> None:
    _, client = running
    with caplog.at_level("INFO"):
        shown = run(client, "next_ballot").json()["data"][0]
        run(client, "vote", shown["ballot_id"], "left", shown["participant_id"])
        client.get("vote", params={"PROLIFIC_PID": "5f0a1b2c3d"})
    lines = [
        JsonFormatter("%(message)s %(name)s").format(record) for record in caplog.records if "firewall" in record.name
    ]
    routes = [json.loads(line)["route"] for line in lines]
    assert "/gradio_api/run/vote" in routes
    assert "/vote" in routes
    for secret in (shown["participant_id"], shown["ballot_id"], "5f0a1b2c3d", "127.0.0.1", "red apple"):
        assert secret not in "\n".join(lines)


@pytest.mark.needs("chromium")
def test_the_pages_keep_to_their_own_policy(running: tuple[Services, httpx.Client]) -> None:
    complaints: list[str] = []
    with browsing() as page:
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "response",
            lambda answer: complaints.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None,
        )
        signs = {"": "#npo-generate", "vote": "#npo-vote-agree", "results": "header", "about": "header"}
        for path, sign in signs.items():
            page.goto(f"{running[1].base_url}{path}")
            page.wait_for_selector(sign)
            page.wait_for_timeout(1500)  # what the page asks for as it opens is answered before it is left
    assert complaints == []
