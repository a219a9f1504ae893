"""The named endpoints for scripts: /generate, /next_ballot, /vote and /results, through gradio_client or plain HTTP.

    client = gradio_client.Client("http://127.0.0.1:7860")
    shown = client.predict("a red apple, 3d style", 7, api_name="/generate")
    names = client.predict(shown["ballot_id"], "B", shown["participant_id"], api_name="/vote")

Participants are opaque ids: leave yours empty the first time and send back the one that came with the answer. A
participant id is all that vouches for a vote, and the store checks that the ballot was issued to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from collection.records import CHOICES
from collection.report import as_json
from npo_core.adapters import Role
from service.adapters import NEWEST
from service.compare import CompareService
from service.errors import INPUT_ERRORS, InputError
from service.picks import Pick
from service.services import Services
from ui import forms
from ui.parts import data_uri

WORDS_FOR_NO_DIFFERENCE = "tie"


class Api:
    """The endpoints as plain methods; each answers with one JSON object or raises gr.Error with one sentence."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._of_family = {each.family.name: each for each in (services, *services.others)}

    def generate(
        self,
        prompt: str,
        seed: int = 0,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance_scale: float | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        scheduler: str | None = None,
        participant_id: str = "",
        aligned_version: str = NEWEST,
        negative_version: str = NEWEST,
        family: str = "",
        modality: str = "image",
        frames: int | None = None,
        fps: float | None = None,
    ) -> dict[str, Any]:
        """Every variant from one noise, blind and in shuffled order, with a ballot; versions are ids of adapters.

        family: one of those on this machine, by default the one that the app opened with.
        modality: image or, where the family makes clips, video, with its length in frames and frames a second.
        """
        with _one_sentence():
            compare = self._service(family).compare
            request = forms.build_request(
                prompt, seed, negative_prompt, steps, guidance_scale, alpha, beta, scheduler, modality, frames, fps
            )
            who = compare.participant(participant_id)
            versions: dict[Role, str] = {"aligned": aligned_version, "negative": negative_version}
            view = compare.compare(request, who, versions)
        panels = [{"panel": panel.letter, "media": data_uri(panel.media, panel.media_type)} for panel in view.panels]
        return {
            "participant_id": who,
            "ballot_id": view.comparison_id,
            "choices": [*(panel["panel"] for panel in panels), WORDS_FOR_NO_DIFFERENCE],
            "prompt": view.request.prompt,
            "seed": view.request.seed,
            "panels": panels,
            "versions": view.versions,
            "notes": list(view.notes),
            "elapsed_s": view.elapsed_s,
        }

    def next_ballot(self, participant_id: str = "") -> dict[str, Any]:
        """Two stored pictures of one prompt and seed that this participant has not judged; ballot_id null if none."""
        with _one_sentence():
            who = self._services.compare.participant(participant_id)
            pair = self._services.pool.next_ballot(who)
        if pair is None:
            return {"participant_id": who, "ballot_id": None}
        return {
            "participant_id": who,
            "ballot_id": pair.ballot_id,
            "choices": list(CHOICES),
            "prompt": pair.prompt,
            "left": data_uri(pair.left, pair.media_type),
            "right": data_uri(pair.right, pair.media_type),
        }

    def vote(self, ballot_id: str, choice: str, participant_id: str, worst: str = "") -> dict[str, Any]:
        """Answers a ballot: of /next_ballot with left, right, tie, both_bad or skip; of /generate with the letter of
        the best panel (`worst` is optional) or tie. The names are in the answer."""
        with _one_sentence():
            if self._is_comparison(ballot_id, participant_id):
                return _vote_on_panels(self._services.compare, ballot_id, choice, participant_id, worst)
            if worst:
                raise InputError(f"A worst panel, {worst!r}, was given for a ballot of two; leave it out.")
            reveal = self._services.pool.vote(ballot_id, participant_id, choice)
        return {
            "ballot_id": ballot_id,
            "choice": reveal.choice,
            "left_variant": reveal.left_variant,
            "right_variant": reveal.right_variant,
        }

    def results(self) -> dict[str, Any]:
        """The blind votes so far: totals, win rates and ratings with 95% intervals, position bias, agreement."""
        with _one_sentence():
            return as_json(self._services.results())

    def _service(self, family: str) -> Services:
        try:
            return self._of_family[family or self._services.family.name]
        except KeyError:
            names = ", ".join(self._of_family)
            raise InputError(f"The family {family!r} is not on this machine; choose from {names}.") from None

    def _is_comparison(self, ballot_id: str, participant_id: str) -> bool:
        strings = isinstance(ballot_id, str) and isinstance(participant_id, str)
        return strings and bool(self._services.store.ballots(ballot_id, participant_id))


def _vote_on_panels(
    compare: CompareService, comparison_id: str, choice: str, participant_id: str, worst: str
) -> dict[str, Any]:
    same = choice == WORDS_FOR_NO_DIFFERENCE
    pick = Pick(best=None if same else choice, worst=worst or None, no_difference=same)
    revealed = compare.vote(comparison_id, participant_id, pick)
    return {
        "ballot_id": comparison_id,
        "choice": choice,
        "worst": worst or None,
        "panels": {panel.letter: panel.variant for panel in revealed.panels},
    }


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turns the user's mistakes into gr.Error, whose sentence reaches scripts; everything else stays a fault."""
    try:
        yield
    except INPUT_ERRORS as error:
        raise gr.Error(str(error), print_exception=False) from None


def register(services: Services) -> None:
    """Adds the endpoints to the Blocks that is being built."""
    api = Api(services)
    endpoints: dict[str, Callable[..., dict[str, Any]]] = {
        "generate": api.generate,
        "next_ballot": api.next_ballot,
        "vote": api.vote,
        "results": api.results,
    }
    for name, endpoint in endpoints.items():
        gr.api(endpoint, api_name=name, concurrency_limit=8)
