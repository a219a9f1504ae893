"""The log of an app that is attacked and breaks: it tells nobody's id, code, ballot or words."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from collection.store import Store
from service.services import browser_secret
from tests.ui.serving import free_port, serving_apart
from tests.ui.voting import fill_study

WORDS = "a wish that nobody else should read"
WORKER = "5f0a1b2c3d4e5f6071829304"
FAULTS = (
    "CREATE TRIGGER no_votes BEFORE INSERT ON votes BEGIN SELECT RAISE(ABORT, 'it is broken'); END",
    "CREATE TRIGGER no_enrolments BEFORE INSERT ON enrolments BEGIN SELECT RAISE(ABORT, 'it is broken'); END",
    "CREATE TRIGGER no_faults BEFORE INSERT ON faults BEGIN SELECT RAISE(ABORT, 'it is broken'); END",
)
Call = Callable[..., httpx.Response]


def test_the_log_of_an_attacked_and_broken_app_names_nobody(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'npo.db'}", tmp_path)
    fill_study(store, prompts=3, training=False)
    log, port = tmp_path / "log.txt", free_port()
    command = [sys.executable, "-m", "tests.ui.serving", str(tmp_path), str(port)]
    with (
        serving_apart(command, port, log=log),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/", timeout=60) as client,
    ):

        def call(name: str, *data: Any, way: str = "run") -> httpx.Response:
            answer = client.post(f"gradio_api/{way}/{name}", json={"data": data})
            if way == "call" and answer.status_code == 200:
                return client.get(f"gradio_api/call/{name}/{answer.json()['event_id']}")
            return answer

        secrets = attack(call, tmp_path / "npo.db")
    told = log.read_text()
    assert told.count("Traceback") >= 4  # or nothing was tried
    assert "it is broken" in told
    with sqlite3.connect(tmp_path / "npo.db") as database:
        kept = {"participants": ("id",), "ballots": ("id",), "enrolments": ("code", "worker_hash")}
        for table, columns in kept.items():
            rows = database.execute(f"SELECT {', '.join(columns)} FROM {table}")
            secrets |= {value for row in rows for value in row if value}
    assert len(secrets) >= 8
    assert [secret for secret in secrets if secret in told] == []
    assert browser_secret(tmp_path) not in told


def attack(call: Call, database: Path) -> set[str]:
    """Takes part, sends nonsense with true ids in it, breaks the database and goes on; returns what was sent."""
    part = call("join_study", "pilot", "1", "", {"PROLIFIC_PID": WORKER}).json()["data"][0]
    token = part["participant_id"]
    pair = call("next_ballot", token, "pilot").json()["data"][0]
    nonsense: tuple[Any, ...] = (None, 7, [token], {WORDS: token}, "\u202e" + token, "' OR 1=1 --" + WORDS)
    for value in nonsense:
        for name in ("vote", "next_ballot", "join_study", "report_fault", "leave_study", "generate"):
            for way in ("run", "call"):
                call(name, value, pair["ballot_id"], token, WORDS, value, way=way)
    with sqlite3.connect(database) as broken:
        for fault in FAULTS:
            broken.execute(fault)
    for way in ("run", "call"):
        assert "it is broken" not in call("vote", pair["ballot_id"], "left", token, "", 2.0, way=way).text
        call("join_study", "pilot", "1", "", {"PROLIFIC_PID": WORKER + "9"}, way=way)
        call("report_fault", "pilot", token, WORDS, pair["ballot_id"], way=way)
    return {token, token.partition(".")[2], part["code"], pair["ballot_id"], WORKER, WORDS}
