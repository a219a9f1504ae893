"""People who only ask, over real HTTP: they leave no row, shut nobody out, and vote like everybody when they do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from service.operations.shared_reads import SharedReads
from service.services import Services
from tests.collection.helpers import add_comparison
from tests.service.helpers import make_services
from tests.ui.http.test_fuzz import rows
from tests.ui.serving import serving

ASKED = 720  # what once shut the door for a minute


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, family: ModelFamily, generator: Generator
) -> Iterator[tuple[Services, httpx.Client]]:
    services = make_services(tmp_path_factory.mktemp("strangers"), family, generator)
    for number in range(4):
        add_comparison(services.store, f"made {number}", prompt=f"a thing number {number}", family="tiny")
    with serving(services) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield services, client


def call(client: httpx.Client, name: str, *data: Any) -> Any:
    """The answer of an endpoint; raises unless it is one."""
    answer = client.post(f"gradio_api/run/{name}", json={"data": list(data)})
    answer.raise_for_status()
    return answer.json()["data"][0]


def test_asking_without_end_writes_nothing_and_shuts_nobody_out(running: tuple[Services, httpx.Client]) -> None:
    services, client = running
    known = call(client, "next_ballot")
    call(client, "vote", known["ballot_id"], "left", known["participant_id"])
    before = rows(services)
    with ThreadPoolExecutor(8) as readers:  # as fast as they are let in
        shown = list(readers.map(lambda _: call(client, "next_ballot"), range(ASKED)))
    assert rows(services) == before
    assert len({pair["participant_id"] for pair in shown}) == ASKED
    for pair in shown[:3]:  # a newcomer may vote, and somebody known goes on
        assert call(client, "vote", pair["ballot_id"], "tie", pair["participant_id"])["left_variant"]
    assert call(client, "next_ballot", known["participant_id"])["ballot_id"]
    after = rows(services)
    assert [after[table] - before[table] for table in ("participants", "votes")] == [3, 3]
    assert after["ballots"] - before["ballots"] == 4
    assert services.store.verify() == []


def test_a_newcomer_keeps_the_id_that_was_handed_out_and_exists_from_the_first_vote_on(
    running: tuple[Services, httpx.Client],
) -> None:
    services, client = running
    first = call(client, "next_ballot")
    who = first["participant_id"]
    second = call(client, "next_ballot", who)
    assert second["participant_id"] == who
    assert not services.store.has_participant(who)
    answer = call(client, "vote", second["ballot_id"], "left", who)
    assert call(client, "vote", second["ballot_id"], "left", who) == answer, "the same again is a retry"
    assert services.store.has_participant(who)
    made_up = call(client, "next_ballot", "0" * 32)
    assert made_up["participant_id"] != "0" * 32
    judged, ballot = 1, call(client, "next_ballot", who)
    while ballot["ballot_id"]:
        call(client, "vote", ballot["ballot_id"], "tie", who)
        judged, ballot = judged + 1, call(client, "next_ballot", who)
    assert judged == 4  # each comparison once
    late = client.post("gradio_api/run/vote", json={"data": [first["ballot_id"], "right", who]})
    assert late.status_code == 403  # its names were told meanwhile
    assert services.store.verify() == []


def test_who_was_erased_comes_back_as_somebody_else(running: tuple[Services, httpx.Client]) -> None:
    services, client = running
    shown = call(client, "next_ballot")
    who = shown["participant_id"]
    call(client, "vote", shown["ballot_id"], "left", who)
    services.store.erase_participant(who)
    assert call(client, "next_ballot", who)["participant_id"] != who
    late = client.post("gradio_api/run/vote", json={"data": [shown["ballot_id"], "left", who]})
    assert late.status_code == 403
    assert not services.store.has_participant(who)


def test_results_are_summed_up_once_for_all_who_read_them() -> None:
    worked, begun, go_on = [], threading.Event(), threading.Event()
    reads = SharedReads(0.05)

    def work() -> int:
        worked.append(len(worked))
        return len(worked)

    def slowly() -> int:
        begun.set()
        go_on.wait(10)
        return work()

    assert [reads.get("results", work) for _ in range(5)] == [1] * 5
    with ThreadPoolExecutor(9) as readers:
        threading.Event().wait(0.06)
        first = readers.submit(reads.get, "results", slowly)
        assert begun.wait(10)
        assert [each.result(10) for each in [readers.submit(reads.get, "results", work) for _ in range(8)]] == [1] * 8
        go_on.set()
        assert first.result(10) == 2
    with pytest.raises(ValueError, match="nothing"):
        reads.get("elsewhere", lambda: int("nothing"))
    assert reads.get("elsewhere", work) == 3
