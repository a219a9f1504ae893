"""One comparison from prompt to vote: generate, store, issue ballots, show blind panels, vote, reveal, undo."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from collection.store import Store
from collection.types import Generation, NewBallot
from npo_core.catalog.adapter_files import Role
from npo_core.console import hush_libraries
from npo_core.generator import Comparison, Generator
from npo_core.grid import Grid, grid_requests, make_grid
from npo_core.progress import OnStep, StepProgress
from npo_core.requests import GenerationRequest, ResolvedRequest, resolve_request
from npo_core.variants import get_variant
from service.arena.picks import LETTERS, Pick, ballots_in_order, check_pick, pairwise_choices, panel_order, panel_pairs
from service.arena.visitors import Visitors
from service.errors import InputError, RefusedError
from service.generation.adapters_in_use import AdapterShelf
from service.generation.generation_queue import Desk, OnWait
from service.generation.zero_gpu import comparison_seconds, grid_seconds, is_lent, lend_gpu
from service.operations.metrics import generating, voting

REMEMBERED_COMPARISONS = 2000  # kept in memory without their pictures; older ones are read back from the store
LONGEST_LOOK_S = 3600.0


@dataclass(frozen=True)
class Panel:
    """A picture or clip as it may be shown before the vote: a letter and its bytes, nothing about its origin."""

    letter: str
    media: bytes
    media_type: str


@dataclass(frozen=True)
class BlindProgress:
    """A finished denoising step. `preview()` decodes the panels as they are now, in the order they will be shown."""

    step: int
    total_steps: int
    preview: Callable[[], list[Image.Image]]


@dataclass(frozen=True)
class ComparisonView:
    """What may be shown before the vote."""

    comparison_id: str
    panels: tuple[Panel, ...]
    request: ResolvedRequest
    elapsed_s: float
    versions: dict[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RevealedPanel:
    """A panel after the vote."""

    letter: str
    variant: str
    label: str
    media: bytes
    media_type: str


@dataclass(frozen=True, eq=False)  # hashed by identity: it holds a dict, and pages keep it in their state
class RevealedComparison:
    """The answer to a vote. `settings` is everything needed to make the pictures again; `blind` is False for a pick
    that was made after an undo, when the names were known already."""

    comparison_id: str
    panels: tuple[RevealedPanel, ...]
    pick: Pick
    blind: bool
    settings: dict[str, Any]


@dataclass
class _Open:
    """What the service remembers about a comparison that it showed."""

    participant_id: str
    generation_ids: list[str]  # in panel order
    ballot_ids: list[str]  # of panel_pairs, in that order; after an undo those of the open ballots
    shown_at_s: float | None = None
    revealed: bool = False
    blind: bool = True
    pick: Pick | None = None


OnBlindStep = Callable[[BlindProgress], None]


class CompareService:
    """Any number of threads may call it; generations run one at a time, on a lent GPU without progress."""

    def __init__(
        self,
        store: Store,
        generator: Generator,
        shelf: AdapterShelf,
        visitors: Visitors,
        rng: random.Random | None = None,
        desk: Desk | None = None,
    ) -> None:
        self._store = store
        self._generator = generator
        self._shelf = shelf
        self.desk = desk or Desk()
        self._visitors = visitors
        self._turnstile = visitors.turnstile
        self._make = lend_gpu(generator.generate, partial(comparison_seconds, family=generator.family))
        self._make_grid = lend_gpu(partial(make_grid, generator), partial(grid_seconds, family=generator.family))
        self._rng = rng or random.SystemRandom()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self.warming_up = False  # whether visitors should be told that the first pictures will take a while
        self._remembering = threading.RLock()

    def load(self) -> None:
        """Loads the model unless it is there; raises InputError when it cannot be loaded.

        The libraries are imported under the same lock: diffusers fails when two threads import it at once.
        """
        with self.desk.turn(self._generator):
            hush_libraries()
            self._generator.load()

    def warm_up(self) -> None:
        """Loads the model and makes it ready for the first visitor; raises InputError when it cannot be loaded."""
        self.warming_up = True
        try:
            with self.desk.turn(self._generator):
                self.load()
                self._generator.warm_up()
        finally:
            self.warming_up = False

    @property
    def on_lent_gpu(self) -> bool:
        """Whether every generation runs on a GPU that is lent for it (ZeroGPU)."""
        return is_lent(self._make)

    def check(self, request: GenerationRequest) -> None:
        """Raises InputError for a request that cannot be made; takes no time."""
        if not 2 <= len(request.variants) <= len(LETTERS):
            raise InputError(f"{len(request.variants)} variants were asked for; compare 2 to {len(LETTERS)}.")
        resolve_request(request, self._generator.family)

    def compare(
        self,
        request: GenerationRequest,
        participant_id: str,
        versions: dict[Role, str] | None = None,
        on_step: OnBlindStep | None = None,
        on_wait: OnWait | None = None,
    ) -> ComparisonView:
        """Makes every variant of `request` from one noise and asks this person about each pair, in shuffled order.

        Pictures and ballots are stored before this returns. `versions` chooses adapters by role (see AdapterShelf).
        on_wait is told the place in the line of those that wait for the device.
        Raises InputError for a request that cannot be made, FullError and TooOftenError for one too many.
        """
        with generating():
            return self._compare(request, participant_id, versions, on_step, on_wait)

    def _compare(
        self,
        request: GenerationRequest,
        participant_id: str,
        versions: dict[Role, str] | None,
        on_step: OnBlindStep | None,
        on_wait: OnWait | None,
    ) -> ComparisonView:
        self.check(request)  # before loading: a typo should not cost seconds
        self._turnstile.generation(participant_id)
        order = list(range(len(request.variants)))
        self._rng.shuffle(order)
        with self.desk.turn(self._generator, on_wait):  # the versions must stay on until the pictures are made
            self.load()
            self._generator.validate_request(request)
            in_use = self._shelf.put_on(versions, request.modality)
            made = self._make(request) if self.on_lent_gpu else self._make(request, on_step and _blind(on_step, order))
        self._visitors.welcome(participant_id)
        comparison_id = uuid.uuid4().hex
        stored = self._store.add_generations(
            [generation_record(made, number, comparison_id) for number in range(len(made.samples))]
        )
        generation_ids = [stored[number] for number in order]
        ballot_ids = self._issue(comparison_id, generation_ids, participant_id, blind=True)
        self._remember(comparison_id, _Open(participant_id, generation_ids, ballot_ids, time.monotonic()))
        panels = [
            Panel(LETTERS[place], made.samples[number].media, made.samples[number].media_type)
            for place, number in enumerate(order)
        ]
        return ComparisonView(comparison_id, tuple(panels), made.request, made.elapsed_s, in_use.names, in_use.notes)

    def grid(
        self,
        request: GenerationRequest,
        alphas: Sequence[float],
        betas: Sequence[float],
        participant_id: str,
        versions: dict[Role, str] | None = None,
    ) -> Grid:
        """`request` at every alpha and beta, in one batch. Nothing about it is blind, so nothing is stored.

        Raises InputError for what cannot be made, FullError and TooOftenError as `compare` does.
        """
        with generating():
            for cell in grid_requests(request, alphas, betas):
                resolve_request(cell, self._generator.family)
            self._turnstile.generation(participant_id)
            with self.desk.turn(self._generator):
                self.load()
                self._shelf.put_on(versions, request.modality)
                return self._make_grid(request, alphas, betas)

    def vote(self, comparison_id: str, participant_id: str, pick: Pick) -> RevealedComparison:
        """Records `pick` as pairwise votes, all or none; they are on the disk when this returns with the names.

        The same pick again changes nothing (a double click, a retry). Another one needs an undo first.
        Raises InputError for a pick that makes no sense, RefusedError for a comparison that was not shown to this
        person or was answered already, TooOftenError for more than a person can look at.
        """
        with voting("compare"):
            known = self._recall(comparison_id, participant_id)
            check_pick(pick, len(known.generation_ids))
            self._turnstile.vote(participant_id)
            with self._remembering:
                if known.pick is not None and known.pick != pick:
                    raise RefusedError(
                        "This comparison was answered already; undo the answer before giving another.", "answered"
                    )
                response_time_s = _seconds_since(known.shown_at_s)
                choices = pairwise_choices(pick, len(known.generation_ids))
                self._store.votes(list(zip(known.ballot_ids, choices, strict=True)), participant_id, response_time_s)
                known.pick, known.revealed = pick, True
        return self._reveal(comparison_id, known, pick)

    def undo(self, comparison_id: str, participant_id: str) -> None:
        """Takes the answer back. Whatever is answered afterwards is stored as not blind, for the names are known."""
        known = self._recall(comparison_id, participant_id)
        with self._remembering:
            taken_back = self._store.unvote(known.ballot_ids, participant_id)
            if not taken_back and known.pick is None:
                raise InputError("This comparison has no answer to take back; choose the best panel.")
            known.pick, known.revealed, known.blind, known.shown_at_s = None, True, False, None
            known.ballot_ids = self._issue(comparison_id, known.generation_ids, participant_id, blind=False)

    def _issue(
        self, comparison_id: str, generation_ids: Sequence[str], participant_id: str, *, blind: bool
    ) -> list[str]:
        return self._store.create_ballots(
            [
                NewBallot(
                    generation_ids[left], generation_ids[right], participant_id, blind, comparison_id=comparison_id
                )
                for left, right in panel_pairs(len(generation_ids))
            ]
        )

    def _remember(self, comparison_id: str, known: _Open) -> None:
        with self._remembering:
            self._open[comparison_id] = known
            while len(self._open) > REMEMBERED_COMPARISONS:
                self._open.popitem(last=False)

    def _recall(self, comparison_id: str, participant_id: str) -> _Open:
        """What is known of a comparison; from the store when the app was restarted since it was shown."""
        with self._remembering:
            known = self._open.get(comparison_id)
        if known is None and isinstance(comparison_id, str) and isinstance(participant_id, str):
            pairs = panel_pairs(len(self._store.comparison(comparison_id)))
            issued = self._store.ballots(comparison_id, participant_id)  # of this page: those of the pool are apart
            ballots = issued[-len(pairs) :] if pairs else []  # after an undo the newest are the open ones
            if pairs and len(ballots) == len(pairs):
                order = panel_order(ballots)
                ordered = ballots_in_order(ballots, order)
                known = _Open(participant_id, order, [ballot.ballot_id for ballot in ordered])
                known.revealed, known.blind = len(issued) > len(pairs), len(issued) == len(pairs)
                self._remember(comparison_id, known)
        if known is None or known.participant_id != participant_id:
            raise RefusedError(
                f"The comparison {comparison_id!r} was not shown to this participant; generate a new one.",
                "unknown_ballot" if known is None else "not_yours",
            )
        return known

    def _reveal(self, comparison_id: str, known: _Open, pick: Pick) -> RevealedComparison:
        generations = [self._store.get_generation(generation_id) for generation_id in known.generation_ids]
        panels = tuple(
            RevealedPanel(
                LETTERS[place],
                generation.variant,
                get_variant(generation.variant).label,
                self._store.media_path(generation).read_bytes(),
                generation.media_type,
            )
            for place, generation in enumerate(generations)
        )
        return RevealedComparison(comparison_id, panels, pick, known.blind, _settings(generations))


def _seconds_since(shown_at_s: float | None) -> float | None:
    """How long the person looked; None when that is not known or is no answer time any more (a tab left open)."""
    seconds = None if shown_at_s is None else time.monotonic() - shown_at_s
    return seconds if seconds is not None and seconds <= LONGEST_LOOK_S else None


def _blind(on_step: OnBlindStep, order: Sequence[int]) -> OnStep:
    """The generator's progress in panel order."""

    def report(progress: StepProgress) -> None:
        def preview() -> list[Image.Image]:
            images = progress.preview()  # none where memory does not do for all clips at once
            return [images[number] for number in order] if images else []

        on_step(BlindProgress(progress.step, progress.total_steps, preview))

    return report


def generation_record(made: Comparison, number: int, comparison_id: str) -> Generation:
    """Sample `number` of a comparison, with everything needed to make it again."""
    request, sample = made.request, made.samples[number]
    aligned, negative = made.adapters.get("aligned"), made.adapters.get("negative")
    return Generation(
        comparison_id=comparison_id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        family=made.family,
        modality=request.modality,
        variant=sample.variant,
        aligned_id=aligned.id if aligned else None,
        aligned_sha256=aligned.sha256 if aligned else None,
        negative_id=negative.id if negative else None,
        negative_sha256=negative.sha256 if negative else None,
        alpha=float(request.alpha),
        beta=float(request.beta),
        guidance_scale=float(request.guidance_scale),
        steps=request.steps,
        scheduler=request.scheduler,
        width_px=request.width_px,
        height_px=request.height_px,
        frames=request.frames,
        fps=request.fps,
        versions={**made.versions, **made.execution},
        elapsed_s=made.elapsed_s,
        media=sample.media,
        media_type=sample.media_type,
        media_sha256=sample.media_sha256,
        latents=sample.latents,
    )


def _settings(generations: Sequence[Generation]) -> dict[str, Any]:
    """What the pictures or clips of one comparison share, as plain values."""
    shared = vars(replace(generations[0], latents=None))
    own = ("id", "variant", "media", "media_sha256", "media_type", "latents", "created_at")
    return {name: value for name, value in shared.items() if name not in own}
