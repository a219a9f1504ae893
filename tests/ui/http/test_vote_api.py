"""A study through the real HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from npo_core.variants import DEFAULT_VARIANTS
from service.arena.people import keyed_hash, participant_of, referral_of, token_of
from service.services import Services
from tests.service.helpers import SECRET, make_services
from tests.ui.serving import serving
from tests.ui.voting import fill_study

PROLIFIC = {"PROLIFIC_PID": "5f0a1b2c3d", "STUDY_ID": "60aa", "SESSION_ID": "60bb"}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, family: ModelFamily, generator: Generator
) -> Iterator[tuple[Services, Client]]:
    services = make_services(tmp_path_factory.mktemp("study"), family, generator)
    fill_study(services.store, ballots_per_participant=4, completion_code="DONE", min_view_s=0.0)
    with serving(services) as address:
        yield services, Client(address, verbose=False)


def test_a_script_takes_part_from_consent_to_the_completion_code(running: tuple[Services, Client]) -> None:
    services, client = running
    study = client.predict(api_name="/study")
    assert (study["name"], study["closed"]) == ("pilot", None)
    part = client.predict(study["name"], study["consent_version"], "", PROLIFIC, api_name="/join_study")
    told = json.dumps([study, part])
    kinds = set()
    for _ in range(2 + study["ballots_per_participant"]):
        pair = client.predict(part["participant_id"], study["name"], api_name="/next_ballot")
        kinds.add(frozenset(pair))
        told += json.dumps({name: value for name, value in pair.items() if name not in ("left", "right")})
        answer = client.predict(pair["ballot_id"], "left", part["participant_id"], "", 1.5, api_name="/vote")
        assert set(answer) == {"ballot_id", "choice", "right"}
        assert (answer["right"] is None) == (not pair["training"])
    end = client.predict(part["participant_id"], study["name"], api_name="/next_ballot")
    assert (end["ballot_id"], end["finished"], end["completion_code"], end["code"]) == (
        None,
        True,
        "DONE",
        part["code"],
    )
    assert len(kinds) == 1  # a check, a repeat and a normal pair have the same fields
    assert not any(word in told for word in (*DEFAULT_VARIANTS, "degraded", "check", "repeat", "sha256", "seed"))
    database = Path(services.store.url.database or "").read_bytes()
    assert not any(value.encode() in database for value in PROLIFIC.values())
    join = (study["name"], study["consent_version"])
    again = client.predict(*join, part["participant_id"], PROLIFIC, api_name="/join_study")
    assert (again["participant_id"], again["answered"]) == (part["participant_id"], 4)


def test_workers_who_share_a_browser_are_two_and_an_id_alone_opens_nothing(running: tuple[Services, Client]) -> None:
    _, client = running
    first_worker, second_worker = {"PROLIFIC_PID": "shared1"}, {"PROLIFIC_PID": "shared2"}
    first = client.predict("pilot", "1", "", first_worker, api_name="/join_study")
    second = client.predict("pilot", "1", first["participant_id"], second_worker, api_name="/join_study")
    assert first["participant_id"] != second["participant_id"]
    browser = client.predict("pilot", "1", api_name="/join_study")
    with_id = client.predict("pilot", "1", browser["participant_id"], {"PROLIFIC_PID": "late"}, api_name="/join_study")
    assert with_id["participant_id"] != browser["participant_id"]
    for token in ("", browser["participant_id"], second["participant_id"]):  # who knows an id is handed nothing
        with pytest.raises(AppError, match="somebody takes part already"):
            client.predict("pilot", "1", token, first_worker, api_name="/join_study")
    for part in (first, second, with_id):  # and all of them go on
        pair = client.predict(part["participant_id"], "pilot", api_name="/next_ballot")
        client.predict(pair["ballot_id"], "left", part["participant_id"], api_name="/vote")


@pytest.mark.parametrize("unfilled", ["{{%PROLIFIC_PID%}}", "PROLIFIC_PID", "${e://Field/PROLIFIC_PID}", "<id>"])
def test_a_link_that_nobody_filled_in_makes_nobody(running: tuple[Services, Client], unfilled: str) -> None:
    services, client = running
    before = services.store.study_progress("pilot")[0].participants
    with pytest.raises(AppError, match="which is no id"):
        client.predict("pilot", "1", "", {"PROLIFIC_PID": unfilled}, api_name="/join_study")
    assert services.store.study_progress("pilot")[0].participants == before


def test_withdrawing_and_faults_are_noted(running: tuple[Services, Client]) -> None:
    services, client = running
    part = client.predict("pilot", "1", api_name="/join_study")
    who = part["participant_id"]
    client.predict("pilot", who, "a picture failed to load", "", api_name="/report_fault")
    assert services.store.study_progress("pilot")[0].faults == 1
    client.predict("pilot", who, api_name="/leave_study")
    with pytest.raises(AppError, match="have withdrawn"):
        client.predict(who, "pilot", api_name="/next_ballot")


@pytest.mark.parametrize(
    ("arguments", "endpoint", "words"),
    [
        (("nowhere",), "/study", "There is no study 'nowhere'"),
        (("pilot", "0"), "/join_study", "read it and agree again"),
        (
            ("pilot", "1", "", {"workerId": "A1", "assignmentId": "ASSIGNMENT_ID_NOT_AVAILABLE"}),
            "/join_study",
            "preview",
        ),
        (("made.up", "pilot"), "/next_ballot", "was not issued here"),
        (("made up", "left", "made.up"), "/vote", "was not issued to this participant"),
    ],
)
def test_a_mistake_in_a_study_reaches_the_script_as_one_sentence(
    running: tuple[Services, Client], arguments: tuple[object, ...], endpoint: str, words: str
) -> None:
    with pytest.raises(AppError, match=words):
        running[1].predict(*arguments, api_name=endpoint)


def test_a_study_ballot_cannot_be_answered_where_names_are_told(running: tuple[Services, Client]) -> None:
    _, client = running
    part = client.predict("pilot", "1", api_name="/join_study")
    pair = client.predict(part["participant_id"], "pilot", api_name="/next_ballot")
    bare_id = part["participant_id"].partition(".")[0]
    with pytest.raises(AppError, match="was not issued here"):
        client.predict(pair["ballot_id"], "left", bare_id, api_name="/vote")
    stranger = client.predict("pilot", "1", api_name="/join_study")["participant_id"]
    with pytest.raises(AppError, match="was not issued to this participant"):
        client.predict(pair["ballot_id"], "left", stranger, api_name="/vote")


def test_tokens_are_signed_and_platform_ids_are_kept_as_keyed_hashes() -> None:
    token = token_of("abc", SECRET)
    assert participant_of(token, SECRET) == "abc"
    for forged in (token[:-1], token + "0", "abc", "abd" + token[3:], "", None, 7, token_of("abc", "other")):
        assert participant_of(forged, SECRET) is None
    referral = referral_of(PROLIFIC, SECRET)
    assert referral is not None
    assert (referral.platform, len(referral.worker_hash)) == ("prolific", 64)
    assert referral != referral_of(PROLIFIC, "other")
    assert not any(value in str(referral) for value in PROLIFIC.values())
    mturk = referral_of({"workerId": "A1", "hitId": "H1", "assignmentId": "S1"}, SECRET)
    assert mturk is not None
    assert (mturk.platform, mturk.task_hash) == ("mturk", keyed_hash("H1", SECRET, "mturk", "task"))
    assert referral_of({}, SECRET) is referral_of(None, SECRET) is referral_of("x", SECRET) is None
