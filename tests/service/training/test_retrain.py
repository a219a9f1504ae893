"""Who may train, and a real training in a process of its own, on the tiny family."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from collection.types import TrainingRun
from service.errors import INPUT_ERRORS, InputError
from service.services import Services
from service.training import admin
from service.training.admin import AdminGate
from service.training.retrain import RetrainService, RunView
from tests.collection.helpers import cast, generation
from tests.train.helpers import SHAPE, vote_in_store
from train.pairs.pairs import from_store, sources_of


def test_only_the_right_password_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = AdminGate("secret")
    gate.require(gate.admit("secret"))
    for wrong in ("", "Secret", "secret ", None):
        with pytest.raises(InputError, match="not the password"):
            gate.admit(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not signed in"):
        gate.require("made up")
    with pytest.raises(InputError, match="not signed in"):
        gate.require(None)
    with pytest.raises(InputError, match="not the password"):
        AdminGate(None).admit("")


def test_guessing_is_slowed_down_even_for_the_right_password() -> None:
    gate = AdminGate("secret")
    for _ in range(admin.TRIES):
        with pytest.raises(InputError):
            gate.admit("guess")
    with pytest.raises(InputError, match="wait a minute"):
        gate.admit("secret")


def test_a_token_grows_old(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = AdminGate("secret")
    token = gate.admit("secret")
    monkeypatch.setattr(admin, "TOKEN_LIFE_S", -1.0)
    with pytest.raises(InputError, match="not signed in"):
        gate.require(token)


def test_an_account_on_the_list_is_let_in_and_no_other() -> None:
    gate = AdminGate(None, ["ada"])
    gate.require(gate.admit_user("ada"))
    for stranger in ("eve", "", None):
        with pytest.raises(InputError, match="not on the list"):
            gate.admit_user(stranger)


def test_nothing_is_told_or_done_without_a_token(services: Services) -> None:
    for act in (
        lambda: services.retrain.news(None, "negative"),
        lambda: services.retrain.start(None, "negative"),
        lambda: services.retrain.stop("made up"),
        lambda: services.retrain.view(None),
        lambda: services.retrain.promote(None, "x"),
        lambda: services.retrain.roll_back(None, "negative"),
    ):
        with pytest.raises(InputError, match="not signed in"):
            act()


def until_done(retrain: RetrainService, token: str, wait_s: float = 120) -> RunView:
    deadline = time.monotonic() + wait_s
    while (view := retrain.view(token)).state == "running":
        assert time.monotonic() < deadline, view.log
        time.sleep(0.3)
    return view


@pytest.mark.usefixtures("own_family")
def test_a_training_runs_in_a_process_of_its_own_and_its_result_can_be_put_to_use(services: Services) -> None:
    vote_in_store(services.store, services.family, "lr" * 12)
    retrain, token = services.retrain, services.retrain.gate.admit("right password")
    news = retrain.news(token, "negative")
    assert (news.picks, news.new_picks, news.last_trained_at) == (24, 24, None)
    started = retrain.start(token, "negative", 26)
    assert started.state == "running"
    with pytest.raises(InputError, match="A training is running"):
        retrain.start(token, "aligned")
    # A second service over the same folder, as after a restart of the app, knows of it too.
    assert (
        RetrainService(services.store, services.family.name, retrain._data_dir, retrain.gate).view(token).state
        == "running"
    )
    done = until_done(retrain, token)
    assert done.state == "finished", done.log
    assert (done.step, done.total_steps) == (26, 26)
    assert {"loss", "accuracy"} <= done.rows[-1].keys()
    assert done.grid is not None
    assert done.grid.startswith(b"\x89PNG")
    assert done.adapter is not None
    assert retrain.news(token, "negative").new_picks == 0
    assert services.shelf.put_on().names["negative"] != done.adapter.name  # not before it is promoted
    retrain.promote(token, str(done.adapter.id))
    assert services.shelf.put_on().names["negative"] == done.adapter.name
    assert retrain.roll_back(token, "negative") == "the one that ships with the model"


def test_picks_that_balance_out_or_cannot_be_trained_on_are_never_new(services: Services) -> None:
    """What train.npo learns from everything is known afterwards, and the page says that nothing is new."""
    store, token = services.store, services.retrain.gate.admit("right password")
    vote_in_store(store, services.family, "lrl")
    people = [store.create_participant() for _ in range(2)]

    def disagree(comparison: str, shape: tuple[int, ...] = SHAPE, votes: str = "lr") -> tuple[str, str]:
        latents = np.random.default_rng(1).standard_normal(shape).astype(np.float16)
        made = [generation(v, comparison, family="tiny", latents=latents) for v in ("base", "aligned")]
        one, other = store.add_generations(made)
        for person, letter in zip(people, votes, strict=False):
            cast(store, person, one, other, "left" if letter == "l" else "right")
        return one, other

    def new_picks() -> int:
        return services.retrain.news(token, "negative").new_picks

    def learn_from_everything() -> None:
        votes = sources_of(from_store(store, "tiny").pairs)
        run = TrainingRun("tiny", "negative", {"modality": "image"}, tuple(votes))
        store.finish_training_run(store.start_training_run(run), "finished", {})

    assert new_picks() == 3
    balanced = disagree("balanced")
    disagree("of another size", (4, 4, 4), "l")
    assert new_picks() == 3
    learn_from_everything()
    assert new_picks() == 0
    cast(store, store.create_participant(), *balanced, "left")  # now there is a majority
    assert new_picks() == 3
    learn_from_everything()
    assert new_picks() == 0
    cast(store, store.create_participant(), *balanced, "right")  # and now there is none again: a pair would go
    assert new_picks() == 1
    learn_from_everything()
    assert new_picks() == 0
    clips = TrainingRun("tiny", "negative", {"modality": "video"}, ("another",))
    store.finish_training_run(store.start_training_run(clips), "finished", {})
    assert new_picks() == 0


@pytest.mark.usefixtures("own_family")
def test_a_training_that_cannot_begin_says_why_and_one_that_runs_can_be_stopped(services: Services) -> None:
    retrain, token = services.retrain, services.retrain.gate.admit("right password")
    retrain.start(token, "negative")
    failed = until_done(retrain, token)
    assert failed.state == "failed"
    assert "There are 0 usable picks" in failed.log
    with pytest.raises(InputError, match="No training is running"):
        retrain.stop(token)
    vote_in_store(services.store, services.family, "lr" * 12)
    retrain.start(token, "negative", 5000)
    assert retrain.stop(token).state == "stopped"
    assert until_done(retrain, token).state == "stopped"


@pytest.mark.parametrize(("role", "steps"), [("negative", 0), ("negative", 10**6), ("both", None)])
def test_what_cannot_be_trained_is_refused(services: Services, role: str, steps: int | None) -> None:
    token = services.retrain.gate.admit("right password")
    with pytest.raises(INPUT_ERRORS):
        services.retrain.start(token, role, steps)  # type: ignore[arg-type]
    assert replace(services.retrain.view(token)).state == "none"
