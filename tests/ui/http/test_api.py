from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from collection.formats.exporters import EXPORTERS, IMPORTERS
from collection.store import Store
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from npo_core.media.files import open_image
from npo_core.variants import DEFAULT_VARIANTS
from service.arena.picks import Pick
from tests.service.helpers import REQUEST, make_services
from tests.ui.serving import free_port, serving, serving_apart


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, family: ModelFamily, generator: Generator) -> Iterator[Client]:
    """A client of a running app over the tiny family."""
    services = make_services(tmp_path_factory.mktemp("api"), family, generator)
    with serving(services) as address:
        yield Client(address, verbose=False)


def test_generate_vote_and_results_work_from_a_script(client: Client) -> None:
    shown = client.predict("a red apple", api_name="/generate")
    assert [panel["panel"] for panel in shown["panels"]] == ["A", "B", "C"]
    assert shown["choices"] == ["A", "B", "C", "tie"]
    pictures = [open_image(base64.b64decode(panel["media"].partition(",")[2])) for panel in shown["panels"]]
    assert {picture.size for picture in pictures} == {(64, 64)}
    told = json.dumps({name: value for name, value in shown.items() if name not in ("panels", "versions")})
    assert not any(variant in told for variant in DEFAULT_VARIANTS)
    before = client.predict(api_name="/results")["totals"]["votes"]
    names = client.predict(shown["ballot_id"], "B", shown["participant_id"], "C", api_name="/vote")
    assert set(names["panels"].values()) == set(DEFAULT_VARIANTS)
    assert names["blind"] is True
    assert names["seed"] >= 0
    assert shown["seed"] is None
    after = client.predict(api_name="/results")
    known = {contender["id"]: contender for contender in after["contenders"]}
    for rate in after["win_rates"]:
        assert known[rate["contender_a"]]["variant"] == rate["variant_a"]
        assert (rate["low"], rate["missing"]) == (None, "2 more people"), "one person's votes have no interval"
    assert after["totals"]["votes"] == before + 3
    assert after["by_modality"]["image"]["totals"]["votes"] == before + 3


def test_results_are_told_of_votes_that_were_imported(
    tmp_path: Path, family: ModelFamily, generator: Generator
) -> None:
    here, there = (make_services(tmp_path / name, family, generator) for name in ("here", "there"))
    who = here.visitors.named(None)
    view = here.compare.compare(REQUEST, who)
    here.compare.vote(view.comparison_id, who, Pick("A", "B"))
    written = EXPORTERS["pickapic"](here.store.exported_votes(), here.store.media, tmp_path / "pairs")
    there.store.import_votes(IMPORTERS["pickapic"](tmp_path / "pairs", there.store.has_generation))
    with serving(there) as address:
        told = Client(address, verbose=False).predict(api_name="/results")
    assert told["totals"]["votes"] == written > 0
    assert told["win_rates"]


def test_a_stranger_is_asked_about_stored_pairs_until_none_is_left(client: Client) -> None:
    client.predict("a cat", api_name="/generate")
    ballot = client.predict(api_name="/next_ballot")
    who = ballot["participant_id"]
    assert ballot["choices"] == ["left", "right", "tie", "both_bad", "skip"]
    assert set(ballot) == {"participant_id", "ballot_id", "choices", "prompt", "left", "right"}
    answer = client.predict(ballot["ballot_id"], "left", who, api_name="/vote")
    assert answer["left_variant"] != answer["right_variant"]
    for _ in range(20):
        ballot = client.predict(who, api_name="/next_ballot")
        if ballot["ballot_id"] is None:
            break
        client.predict(ballot["ballot_id"], "tie", who, api_name="/vote")
    assert ballot == {"participant_id": who, "ballot_id": None}


def test_a_vote_is_refused_unless_the_ballot_was_issued_to_that_participant(client: Client) -> None:
    shown = client.predict("a cat", 9, api_name="/generate")
    stranger = client.predict(api_name="/next_ballot")["participant_id"]
    for ballot_id, choice, who, words in (
        (shown["ballot_id"], "A", stranger, "was not (issued|shown) to this participant"),
        ("nonsense", "left", stranger, "was not issued to this participant"),
        (shown["ballot_id"], "D", shown["participant_id"], "The best panel is 'D'"),
        (shown["ballot_id"], "left", shown["participant_id"], "The best panel is 'left'"),
    ):
        with pytest.raises(AppError, match=words):
            client.predict(ballot_id, choice, who, api_name="/vote")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", 7), "The prompt is empty"),
        (("x" * 400, 7), "shorten it"),
        (("a cat", -1), "The seed is -1"),
        (("a cat", 2**63), "The seed is 9223372036854775808"),
        (("a cat", 7, "", 0), "The number of steps is 0"),
        (("a cat", 7, "", 5, 100.0), "The guidance scale is 100"),
        (("a cat", 7, "", 5, 4.0, 1.0, 1.0, "magic"), "Unknown scheduler 'magic'"),
    ],
)
def test_a_mistake_reaches_the_script_as_one_sentence(
    client: Client, arguments: tuple[object, ...], words: str
) -> None:
    with pytest.raises(AppError, match=words):
        client.predict(*arguments, api_name="/generate")


def test_killing_the_app_right_after_the_answer_loses_no_vote(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tests.ui.serving", str(tmp_path), str(port)]
    with serving_apart(command, port) as process:
        client = Client(f"http://127.0.0.1:{port}/", verbose=False)
        shown = client.predict("a cat", 3, api_name="/generate")
        client.predict(shown["ballot_id"], "A", shown["participant_id"], "B", api_name="/vote")
        process.kill()
    with Store(f"sqlite:///{tmp_path / 'npo.db'}", tmp_path) as store:
        assert store.totals().votes == 3
        assert store.verify() == []
