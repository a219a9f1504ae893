"""Malformed requests over HTTP: each is answered without a fault, without a traceback, and without a row written.

The quick run sends a few to every endpoint, the slow one a thousand:
`python -m pytest -m slow tests/ui/http/test_fuzz.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from app import build_app
from collection.database.models import Base
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from service.services import Services
from tests.service.helpers import make_services
from tests.ui.serving import serving
from tests.ui.voting import fill_study

ENDPOINTS = (
    *("generate", "next_ballot", "arena", "vote", "results"),
    *("undo_vote", "study", "join_study", "leave_study", "report_fault", "elsewhere"),
)
FEW, MANY = 8, 1000

text = st.text(st.characters(codec=None), max_size=60) | st.sampled_from(
    ["\0", "\ud800", "pilot", "tie", "../../etc/passwd", "' OR 1=1 --", "<script>alert(1)</script>", "=1+1", "x" * 5000]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()  # NaN and infinity too: Python's JSON has them
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
bodies = st.one_of(
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.lists(values, max_size=20).map(lambda data: json.dumps({"data": data}).encode()),
    st.dictionaries(
        st.sampled_from(["data", "fn_index", "session_hash", "event_id", "event_data", "trigger_id", "batched"]), values
    ).map(lambda body: json.dumps(body).encode()),
    st.sampled_from(
        [b"[" * 20_000, b"", b"{", b'{"data": [' + b"1," * 30_000, b'{"data": ["' + b"x" * 70_000 + b'"]}']
    ),
)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, family: ModelFamily, generator: Generator
) -> Iterator[tuple[Services, httpx.Client]]:
    """The app over a study, so that there is something to break."""
    services = make_services(tmp_path_factory.mktemp("fuzz"), family, generator)
    fill_study(services.store, prompts=3)
    with serving(services) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield services, client


def rows(services: Services) -> dict[str, int]:
    """How many rows every table has."""
    with services.store.reading() as session:
        return {
            table.name: session.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, (answer.status_code, answer.text[:300])
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text


def send(client: httpx.Client, path: str, body: bytes, content_type: str = "application/json") -> None:
    """Sends it, and reads what comes of it where it was let into the queue."""
    answer = client.post(path, content=body, headers={"Content-Type": content_type})
    check(answer)
    if answer.status_code == 200 and "/call/" in path:
        check(client.get(f"{path}/{answer.json()['event_id']}"))


def each(test: Any) -> Any:
    """The same test with a few examples, and slowly with a thousand."""
    return pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow, id="thousand")])(test)


def fuzz(examples: int) -> Any:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    repeatable = examples == FEW  # the gate tries the same values every time, the slow run new ones
    return settings(
        max_examples=examples, deadline=None, database=None, derandomize=repeatable, suppress_health_check=checks
    )


@each
@pytest.mark.parametrize("name", ENDPOINTS)
def test_malformed_calls_of_an_endpoint_do_no_harm(
    running: tuple[Services, httpx.Client], name: str, examples: int
) -> None:
    services, client = running
    before = rows(services)
    count = {
        "generate": 15,
        "vote": 5,
        "join_study": 4,
        "report_fault": 4,
        "next_ballot": 3,
        "leave_study": 2,
        "undo_vote": 2,
    }.get(name, 1)

    @fuzz(examples)
    @given(
        st.sampled_from(["run", "run", "call", "call/v2"]),
        bodies | st.lists(values, min_size=count, max_size=count),
    )
    def attack(way: str, body: Any) -> None:
        if isinstance(body, list):
            data = [*body[:-1], ["no frames a second"]] if name == "generate" else body  # never a picture by chance
            body = json.dumps({"data": data}).encode()
        send(client, f"gradio_api/{way}/{name}", body)

    attack()
    assert rows(services) == before


@each
@pytest.mark.parametrize(
    "path", ["queue/join", "cancel", "reset", "upload", "component_server", "vibe-edit", "stream/x"]
)
def test_malformed_calls_of_what_is_gradios_own_do_no_harm(
    running: tuple[Services, httpx.Client], path: str, examples: int
) -> None:
    services, client = running
    before = rows(services)

    @fuzz(examples)
    @given(bodies, st.sampled_from(["application/json", "text/plain", "multipart/form-data; boundary=x", ""]))
    def attack(body: bytes, content_type: str) -> None:
        send(client, f"gradio_api/{path}", body, content_type)

    attack()
    assert rows(services) == before


@each
def test_handlers_of_the_pages_take_any_value(running: tuple[Services, httpx.Client], examples: int) -> None:
    services, client = running
    before = rows(services)
    known = build_app(services).fns  # the same functions in the same order as in the app that runs

    @fuzz(examples)
    @given(st.sampled_from(sorted(known)), st.data(), st.integers(0, 3))
    def attack(number: int, data: st.DataObject, session: int) -> None:
        if known[number].concurrency_id == "generation":
            return  # what makes pictures is attacked by its name, with values that cannot be made
        sent = data.draw(st.lists(values, min_size=len(known[number].inputs), max_size=len(known[number].inputs)))
        body = {"fn_index": number, "session_hash": f"session{session}", "data": sent}
        headers = {"Content-Type": "application/json"}
        answer = client.post("gradio_api/queue/join", content=json.dumps(body), headers=headers)
        check(answer)
        if answer.status_code == 200:
            check(client.get("gradio_api/queue/data", params={"session_hash": f"session{session}"}))

    attack()
    assert rows(services) == before


@each
def test_no_address_gives_a_file_or_a_fault(running: tuple[Services, httpx.Client], examples: int) -> None:
    _, client = running
    roots = [
        "",
        "gradio_api/file=",
        "gradio_api/",
        "assets/",
        "static/",
        "gradio_api/proxy=",
        "file=",
        "gradio_api/call/",
    ]
    targets = [
        "/etc/passwd",
        "../" * 8 + "etc/passwd",
        "data/participant_secret",
        "app.py",
        "http://127.0.0.1:1/",
        ".env",
    ]

    @fuzz(examples)
    @given(st.sampled_from(roots), st.sampled_from(targets) | text.map(lambda name: name.encode("utf-8", "replace")))
    def attack(root: str, target: str | bytes) -> None:
        for path in (root + quote(target, safe=""), root + quote(target)):
            answer = client.get(path)
            check(answer)
            assert "root:" not in answer.text

    attack()
