"""The named endpoints for scripts and for the page Vote: through gradio_client, or (see direct.py) by plain HTTP.

    client = gradio_client.Client("http://127.0.0.1:7860")
    shown = client.predict("a red apple, 3d style", api_name="/generate")
    names = client.predict(shown["ballot_id"], "B", shown["participant_id"], api_name="/vote")

    study = client.predict(api_name="/study")                          # what it is, and the text to agree to
    part = client.predict(study["name"], study["consent_version"], api_name="/join_study")
    pair = client.predict(part["participant_id"], study["name"], api_name="/next_ballot")

Participants are opaque ids: leave yours empty the first time and send back the one that came with the answer. A
participant id is all that vouches for a vote, and the store checks that the ballot was issued to it.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

import gradio as gr

from collection.statistics.report import as_json
from collection.types import CHOICES
from npo_core.catalog.adapter_files import Role
from npo_core.variants import VARIANTS
from service.arena.ballot_ids import PANELS, STUDY, BallotId, read_ballot_id
from service.arena.compare import CompareService
from service.arena.picks import Pick
from service.arena.pool import BlindPair
from service.errors import INPUT_ERRORS, InputError
from service.generation.adapters_in_use import NEWEST
from service.generation.low_priority import start_apart
from service.operations.metrics import counting_refusals
from service.services import Services
from service.training.new_picks import WANTED_PICKS
from ui.components import request_from_form
from ui.components.html import data_uri, one_line
from ui.http.arguments import Endpoint, checked

WORDS_FOR_NO_DIFFERENCE = "tie"
AGREEMENT_FROM = 10  # picks: before, it says nothing


class Api:
    """The endpoints as plain methods; each answers with one JSON object or raises InputError with one sentence."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._of_family = {each.family.name: each for each in (services, *services.others)}

    def generate(
        self,
        prompt: str,
        seed: int | None = None,
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

        With a seed, settings or versions of one's own it is a `workbench` comparison, whose votes do not count as
        blind. A seed that was drawn here is told with the names.
        family: one of those on this machine, by default the one that the app opened with.
        modality: image or, where the family makes clips, video, with its length in frames and frames a second.
        """
        compare = self._service(family).compare
        request = request_from_form.build_request(
            prompt, seed, negative_prompt, steps, guidance_scale, alpha, beta, scheduler, modality, frames, fps
        )
        compare.check(request)
        who = self._services.visitors.named(participant_id)
        own_seed = request_from_form.has_own_seed(seed)
        versions: dict[Role, str] = {"aligned": aligned_version, "negative": negative_version}
        view = start_apart(lambda: compare.compare(request, who, versions, own_seed=own_seed), "generate").result()
        panels = [{"panel": panel.letter, "media": data_uri(panel.media, panel.media_type)} for panel in view.panels]
        return {
            "participant_id": who,
            "ballot_id": str(BallotId(PANELS, view.comparison_id)),
            "choices": [*(panel["panel"] for panel in panels), WORDS_FOR_NO_DIFFERENCE],
            "prompt": view.request.prompt,
            "seed": seed,
            "workbench": view.workbench,
            "panels": panels,
            "versions": view.versions,
            "notes": list(view.notes),
            "elapsed_s": view.elapsed_s,
        }

    def next_ballot(self, participant_id: str = "", study: str = "", held: str = "") -> dict[str, Any]:
        """Two stored pictures of one prompt and seed that this participant has not judged; ballot_id null if none.

        Of a study: the next pair after the ballot `held`, for those who fetch ahead; at the end the way out.
        """
        if study:
            return self._study_ballot(participant_id, study, held)
        who = self._services.visitors.named(participant_id)
        pair = self._services.pool.next_ballot(who)
        if pair is None:
            return {"participant_id": who, "ballot_id": None}
        return {
            "participant_id": who,
            "ballot_id": str(pair.ballot_id),
            "choices": list(CHOICES),
            **_shown(pair),
        }

    def arena(self, participant_id: str = "", held: str = "") -> dict[str, Any]:
        """A pair of the pool to vote on with /vote, other than the ballot `held` (for those who fetch ahead), and how
        far this person is: picks, how many picks of everybody are missing until the negative model is retrained, and
        after ten the agreement with everybody. ballot_id null while there is no pair left; `labels` are all names."""
        who = self._services.visitors.named(participant_id)
        pair = self._services.pool.offer(who, read_ballot_id(held) if held else None)
        own = self._services.store.own_picks(who)
        told = {
            "participant_id": who,
            "ballot_id": None,
            "picks": own.picks,
            "missing": max(0, WANTED_PICKS - self._services.decided_picks()["image"]),
            "agreement": {"agreeing": own.agreeing, "shared": own.shared} if own.picks >= AGREEMENT_FROM else None,
            "labels": {variant.name: variant.label for variant in VARIANTS.values()},
        }
        return told if pair is None else told | _shown(pair) | {"ballot_id": str(pair.ballot_id), "fps": pair.fps}

    def vote(
        self,
        ballot_id: str,
        choice: str,
        participant_id: str,
        worst: str = "",
        response_time_s: float | None = None,
    ) -> dict[str, Any]:
        """Answers a ballot: of /next_ballot with left, right, tie, both_bad or skip; of /generate with the letter of
        the best panel (`worst` is optional) or tie. The names are in the answer, except in a study."""
        with counting_refusals():
            asked = read_ballot_id(ballot_id)
        if asked.kind == STUDY:
            answer = self._services.study.answer(asked.key, participant_id, choice, response_time_s)
            return {"ballot_id": ballot_id, "choice": answer.choice, "right": answer.right}
        if asked.kind == PANELS:
            return _vote_on_panels(self._services.compare, asked, choice, participant_id, worst)
        if worst:
            raise InputError(f"A worst panel, {worst!r}, was given for a ballot of two; leave it out.")
        reveal = self._services.pool.vote(asked, participant_id, choice, response_time_s)
        return {
            "ballot_id": ballot_id,
            "choice": reveal.choice,
            "left_variant": reveal.left_variant,
            "right_variant": reveal.right_variant,
        }

    def undo_vote(self, ballot_id: str, participant_id: str) -> dict[str, Any]:
        """Takes an answer back: in a study the pair is asked about again; of /generate, what is answered then does not
        count as blind. After /next_ballot it is for good, for the names were told."""
        with counting_refusals():
            asked = read_ballot_id(ballot_id)
        if asked.kind == STUDY:
            return {"taken_back": self._services.study.take_back(asked.key, participant_id)}
        if asked.kind != PANELS:
            raise InputError("The names of these two were told with the answer; it cannot be taken back.")
        self._services.compare.undo(asked.key, participant_id)
        return {"taken_back": 1}

    def study(self, name: str = "") -> dict[str, Any]:
        """A study, the newest open one unless named: what one is told before agreeing; `closed` says why nobody can."""
        plan, closed = self._services.study.describe(name)
        if plan is None:
            return {"name": None, "closed": closed}
        told = (
            "title",
            "modality",
            "instructions",
            "consent",
            "consent_version",
            "min_view_s",
            "ballots_per_participant",
        )
        return {
            "name": plan.name,
            "closed": closed,
            "choices": list(plan.choices),
            **{name: getattr(plan, name) for name in told},
        }

    def join_study(
        self, study: str, consent_version: str, participant_id: str = "", query: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Agrees and takes part, or goes on; `query`: the address's parameters, of which only keyed hashes are kept."""
        part = self._services.study.join(study, participant_id, consent_version, query)
        return {
            "participant_id": part.token,
            "code": part.enrolment.code,
            "answered": part.enrolment.answered,
            "of": part.enrolment.total,
            "withdrawn": part.enrolment.withdrawn_at is not None,
        }

    def leave_study(self, study: str, participant_id: str) -> dict[str, Any]:
        """Withdraws: all answers are taken back and count nowhere."""
        return {"withdrawn": self._services.study.withdraw(study, participant_id)}

    def report_fault(self, study: str, participant_id: str, what: str, ballot_id: str = "") -> dict[str, Any]:
        """Notes that something failed on our side (media that did not load), so that nobody is blamed for it."""
        about = read_ballot_id(ballot_id).key if ballot_id else ""
        self._services.study.report_fault(study, participant_id, what, about)
        return {"noted": True}

    def results(self) -> dict[str, Any]:
        """The blind votes so far: totals, win rates and ratings with 95% intervals, position bias, agreement.

        Of pictures and clips, each contender (see `contenders`) for itself; under `by_modality` of each kind alone.
        low and high are null where `missing` says what an interval still needs.
        """
        return self._services.reads.get("results as JSON", self._results)

    def _results(self) -> dict[str, Any]:
        apart = {modality: as_json(summary) for modality, summary in self._services.results_by_modality().items()}
        together = apart.values() if len(apart) == 1 else [as_json(self._services.results())]  # one kind is all of them
        return next(iter(together)) | {"by_modality": apart}

    def _service(self, family: str) -> Services:
        try:
            return self._of_family[family or self._services.family.name]
        except KeyError:
            names = ", ".join(self._of_family)
            raise InputError(f"The family {family!r} is not on this machine; choose from {names}.") from None

    def _study_ballot(self, participant_id: str, study: str, held: str) -> dict[str, Any]:
        pair = self._services.study.next_pair(study, participant_id, read_ballot_id(held).key if held else "")
        if pair is None:
            plan, _ = self._services.study.describe(study)
            part = self._services.study.part(study, participant_id)
            assert plan is not None  # it was just answered for
            return {
                "participant_id": participant_id,
                "ballot_id": None,
                "finished": part.finished_at is not None,
                "code": part.code,
                "completion_code": plan.completion_code,
                "completion_url": plan.completion_url,
            }
        return {
            "participant_id": participant_id,
            "ballot_id": str(BallotId(STUDY, pair.ballot.ballot_id)),
            "prompt": pair.ballot.prompt,
            "left": data_uri(pair.left, pair.media_type),
            "right": data_uri(pair.right, pair.media_type),
            "fps": pair.ballot.fps,
            "number": pair.ballot.number,
            "of": pair.ballot.total,
            "training": pair.ballot.training,
            "rest": pair.ballot.rest_first,
        }


def _shown(pair: BlindPair) -> dict[str, Any]:
    return {
        "prompt": pair.prompt,
        "left": data_uri(pair.left, pair.media_type),
        "right": data_uri(pair.right, pair.media_type),
    }


def _vote_on_panels(
    compare: CompareService, ballot_id: BallotId, choice: str, participant_id: str, worst: str
) -> dict[str, Any]:
    same = choice == WORDS_FOR_NO_DIFFERENCE
    pick = Pick(best=None if same else choice, worst=worst or None, no_difference=same)
    revealed = compare.vote(ballot_id.key, participant_id, pick)
    return {
        "ballot_id": str(ballot_id),
        "choice": choice,
        "worst": worst or None,
        "panels": {panel.letter: panel.variant for panel in revealed.panels},
        "seed": revealed.settings["seed"],
        "blind": revealed.blind,
    }


def endpoints(services: Services) -> dict[str, Endpoint]:
    """name -> the method behind it, which checks whatever it is called with and raises InputError for what is wrong."""
    api = Api(services)
    return {
        endpoint.__name__: checked(endpoint)
        for endpoint in (
            api.generate,
            api.next_ballot,
            api.arena,
            api.vote,
            api.undo_vote,
            api.results,
            api.study,
            api.join_study,
            api.leave_study,
            api.report_fault,
        )
    }


def register(services: Services) -> None:
    """Adds the endpoints to the Blocks that is being built: for gradio_client, and with a queue."""
    for name, endpoint in endpoints(services).items():
        gr.api(
            _in_one_sentence(endpoint),
            api_name=name,
            **(one_line(services) if name == "generate" else {"concurrency_limit": 8}),
        )


def _in_one_sentence(endpoint: Endpoint) -> Endpoint:
    """Turns the user's mistakes into gr.Error, whose sentence reaches scripts; everything else stays a fault."""

    @wraps(endpoint)
    def told(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return endpoint(*args, **kwargs)
        except INPUT_ERRORS as error:
            raise gr.Error(str(error), print_exception=False) from None

    return told
