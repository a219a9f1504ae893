"""Ways around blindness, over real HTTP: each is tried, and none makes a vote that counts as blind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from collection.types import Generation
from service.services import Services
from tests.collection.helpers import add_comparison, generation
from tests.ui.serving import serving
from tests.ui.voting import fill_study
from ui.pages import results

PROMPT = "a wish of mine alone"
Running = tuple[Services, httpx.Client]


@pytest.fixture
def running(services: Services) -> Iterator[Running]:
    with serving(services) as address, httpx.Client(base_url=address, timeout=120) as client:
        yield services, client


def call(client: httpx.Client, name: str, *data: Any) -> Any:
    """The answer of an endpoint; raises unless it is one."""
    answer = client.post(f"gradio_api/run/{name}", json={"data": list(data)})
    answer.raise_for_status()
    return answer.json()["data"][0]


def generate(client: httpx.Client, **asked: Any) -> Any:
    """A comparison, as a script asks for it."""
    event = client.post("gradio_api/call/v2/generate", json={"prompt": PROMPT} | asked).json()["event_id"]
    told = client.get(f"gradio_api/call/generate/{event}").text
    assert "event: complete" in told, told
    return json.loads(told.rpartition("data: ")[2])[0]


def pictures(shown: Any) -> list[str]:
    return sorted(panel["media"] for panel in shown["panels"])


def blind_votes(services: Services) -> int:
    return sum(count.total for count in services.store.vote_counts())


def test_who_asks_for_the_same_again_as_somebody_else_sees_other_pictures_or_counts_nowhere(running: Running) -> None:
    services, client = running
    first = generate(client)
    assert (first["seed"], first["workbench"]) == (None, False)
    names = call(client, "vote", first["ballot_id"], "A", first["participant_id"])
    assert names["blind"] is True
    counted = blind_votes(services)
    assert counted == 2
    second = generate(client)  # nobody says who asks
    assert not set(pictures(first)) & set(pictures(second))
    again = generate(client, seed=names["seed"])
    assert pictures(again) == pictures(first), "with the seed it is the same"
    assert again["workbench"] is True
    assert call(client, "vote", again["ballot_id"], "A", again["participant_id"])["blind"] is False
    assert blind_votes(services) == counted
    told = call(client, "results")
    assert sum(rate["votes"] for rate in told["win_rates"]) == counted


@pytest.mark.parametrize("own", [{"beta": 0.0}, {"steps": 2}, {"negative_prompt": "blue"}, {"alpha": 0.5}])
def test_settings_of_ones_own_are_the_workbench_and_in_nobodys_pool(running: Running, own: dict[str, Any]) -> None:
    services, client = running
    shown = generate(client, **own)
    assert shown["workbench"] is True
    call(client, "vote", shown["ballot_id"], "B", shown["participant_id"])
    assert blind_votes(services) == 0
    assert call(client, "next_ballot")["ballot_id"] is None
    assert services.store.verify() == []


def test_two_equal_panels_are_not_asked_about(running: Running) -> None:
    """At alpha 1 and beta 0 two of the three are plain Aligned."""
    services, client = running
    shown = generate(client, beta=0.0)
    assert len(set(pictures(shown))) == 2
    equal = next(panel["media"] for panel in shown["panels"] if pictures(shown).count(panel["media"]) == 2)
    letters = [panel["panel"] for panel in shown["panels"] if panel["media"] == equal]
    names = call(client, "vote", shown["ballot_id"], letters[0], shown["participant_id"], letters[1])
    assert {names["panels"][letter] for letter in letters} == {"aligned", "aligned_npo"}
    (count, *others) = services.store.vote_counts(blind_only=False)
    pairs = {(each.variant_a, each.variant_b) for each in (count, *others)}
    assert ("aligned", "aligned_npo") not in pairs


def same_pictures(comparison_id: str, **changes: Any) -> list[Generation]:
    """Another comparison with the very bytes of the first."""
    made = [generation(name, "first", family="tiny") for name in ("base", "aligned", "aligned_npo")]
    return [Generation(**vars(each) | {"comparison_id": comparison_id} | changes) for each in made]


def test_what_a_person_has_seen_under_its_name_is_not_issued_to_them_again(running: Running) -> None:
    services, client = running
    services.store.add_generations(same_pictures("first"))
    shown = call(client, "next_ballot")
    call(client, "vote", shown["ballot_id"], "left", shown["participant_id"])
    services.store.add_generations(same_pictures("again"))  # by another way, the same bytes
    assert call(client, "next_ballot", shown["participant_id"])["ballot_id"] is None
    assert call(client, "next_ballot")["ballot_id"] is not None, "to somebody else they are new"


def test_nothing_public_tells_of_an_open_study_the_pool_or_strangers_prompts(running: Running) -> None:
    services, client = running
    fill_study(services.store, ballots_per_participant=4, training=False, check_share=0.0, repeat_share=0.0)
    part = call(client, "join_study", "pilot", "1")["participant_id"]
    while (pair := call(client, "next_ballot", part, "pilot"))["ballot_id"]:
        client.post("gradio_api/run/vote", json={"data": [pair["ballot_id"], "left", part, "", 1.0]})
    assert services.store.totals().votes == 4
    for number in range(4):
        add_comparison(services.store, f"pool {number}", prompt=f"{PROMPT} {number}", family="tiny")
    who = ""
    for _ in range(3):
        shown = call(client, "next_ballot", who)
        who = shown["participant_id"]
        call(client, "vote", shown["ballot_id"], "left", who)
    told = json.dumps(call(client, "results")) + results.render(services)
    assert call(client, "results")["totals"]["votes"] == 3, "of the pool alone"
    assert [word for word in (PROMPT, "pilot", "prompt 1", "kind 1", "data:image/png") if word in told] == []
    assert "is open; its results can be read here when it is closed" in results.render(services, "pilot")
    services.store.close_study("pilot")
    assert call(client, "results")["totals"]["votes"] == 7
    assert "pairwise votes" in results.render(services, "pilot")
