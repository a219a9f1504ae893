"""One comparison from prompt to vote: generate, store, issue ballots, show blind panels, vote, reveal, undo."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from collection.store import Store
from collection.types import NewBallot
from npo_core.catalog.adapter_files import Role
from npo_core.console import hush_libraries
from npo_core.generator import Generator
from npo_core.grid import Grid, grid_requests, make_grid
from npo_core.progress import OnStep, StepProgress
from npo_core.requests import GenerationRequest, ResolvedRequest, resolve_request
from npo_core.variants import get_variant
from service.arena.picks import LETTERS, Pick, check_pick, pairwise_choices
from service.arena.records import generation_record, shared_settings
from service.arena.shown import Shown, ShownComparisons
from service.arena.visitors import Visitors
from service.errors import InputError, RefusedError
from service.generation.adapters_in_use import NEWEST, AdapterShelf
from service.generation.generation_queue import Desk, OnWait
from service.generation.zero_gpu import comparison_seconds, grid_seconds, is_lent, lend_gpu
from service.operations.metrics import generating, voting

LONGEST_LOOK_S = 3600.0
DRAWN_SEEDS = 2**31  # enough to surprise, short enough to copy by hand


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
    """What may be shown before the vote; the seed of `request` only where it is the visitor's own."""

    comparison_id: str
    panels: tuple[Panel, ...]
    request: ResolvedRequest
    elapsed_s: float
    versions: dict[str, str]
    workbench: bool
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
    that was made after an undo, when the names were known already, and on the workbench, where they could be."""

    comparison_id: str
    panels: tuple[RevealedPanel, ...]
    pick: Pick
    blind: bool
    workbench: bool
    settings: dict[str, Any]


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
        self._shown = ShownComparisons(store)
        self.warming_up = False  # whether visitors should be told that the first pictures will take a while

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
        *,
        own_seed: bool = False,
    ) -> ComparisonView:
        """Makes every variant of `request` from one noise and asks this person about each pair, in shuffled order.

        The seed is drawn here unless own_seed says that the one of `request` is the visitor's. With a seed, settings or
        versions of one's own the same pictures can be had twice, their names from the first time: that is the
        workbench, whose votes are kept as not blind and about which nobody else is asked.
        Pictures and ballots are stored before this returns. `versions` chooses adapters by role (see AdapterShelf).
        on_wait is told the place in the line of those that wait for the device.
        Raises InputError for a request that cannot be made, FullError and TooOftenError for one too many.
        """
        with generating():
            if not own_seed:
                request = replace(request, seed=self._rng.randrange(DRAWN_SEEDS))
            workbench = own_seed or not self._is_plain(request, versions)
            return self._compare(request, participant_id, versions, on_step, on_wait, workbench)

    def _compare(
        self,
        request: GenerationRequest,
        participant_id: str,
        versions: dict[Role, str] | None,
        on_step: OnBlindStep | None,
        on_wait: OnWait | None,
        workbench: bool,
    ) -> ComparisonView:
        self.check(request)  # before loading: a typo should not cost seconds
        self._turnstile.generation(participant_id)
        order = list(range(len(request.variants)))
        self._rng.shuffle(order)
        with self.desk.turn(self._generator, on_wait):  # the versions must stay on until the pictures are made
            self._visitors.welcome(participant_id)
            self.load()
            self._generator.validate_request(request)
            in_use = self._shelf.put_on(versions, request.modality)
            made = self._make(request) if self.on_lent_gpu else self._make(request, on_step and _blind(on_step, order))
        comparison_id = uuid.uuid4().hex
        records = [generation_record(made, number, comparison_id) for number in range(len(made.samples))]
        stored = self._store.add_generations(records, workbench=workbench)
        shown = Shown(
            participant_id,
            [stored[number] for number in order],
            [records[number].media_sha256 for number in order],
            workbench=workbench,
            blind=not workbench,
            shown_at_s=time.monotonic(),
        )
        self._issue(comparison_id, shown)
        self._shown.remember(comparison_id, shown)
        return ComparisonView(
            comparison_id,
            tuple(
                Panel(LETTERS[place], made.samples[number].media, made.samples[number].media_type)
                for place, number in enumerate(order)
            ),
            made.request,
            made.elapsed_s,
            in_use.names,
            workbench,
            in_use.notes,
        )

    def _is_plain(self, request: GenerationRequest, versions: Mapping[Role, str] | None) -> bool:
        """Whether everything but prompt, seed and modality is as the family has it."""
        family = self._generator.family
        plain = GenerationRequest(request.prompt, seed=request.seed, modality=request.modality)
        return resolve_request(request, family) == resolve_request(plain, family) and (
            set((versions or {}).values()) <= {NEWEST}
        )

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

        Two panels of the same bytes are a tie by definition, about which nothing is recorded. The same pick again
        changes nothing (a double click, a retry). Another one needs an undo first.
        Raises InputError for a pick that makes no sense, RefusedError for a comparison that was not shown to this
        person or was answered already, TooOftenError for more than a person can look at.
        """
        with voting("compare"):
            known = self._shown.recall(comparison_id, participant_id)
            check_pick(pick, len(known.generation_ids))
            self._turnstile.vote(participant_id)
            with known.answering:
                if known.pick is not None and known.pick != pick:
                    raise RefusedError(
                        "This comparison was answered already; undo the answer before giving another.", "answered"
                    )
                choices = pairwise_choices(pick, len(known.generation_ids))
                told = zip(known.ballot_ids, choices, known.asked(), strict=True)
                answers = [(ballot_id, choice) for ballot_id, choice, asked in told if asked]
                self._store.votes(answers, participant_id, _seconds_since(known.shown_at_s))
                known.pick = pick
        return self._reveal(comparison_id, known, pick)

    def undo(self, comparison_id: str, participant_id: str) -> None:
        """Takes the answer back. Whatever is answered afterwards is stored as not blind, for the names are known."""
        known = self._shown.recall(comparison_id, participant_id)
        with known.answering:
            taken_back = self._store.unvote(known.ballot_ids, participant_id)
            if not taken_back and known.pick is None:
                raise InputError("This comparison has no answer to take back; choose the best panel.")
            known.pick, known.blind, known.shown_at_s = None, False, None
            self._issue(comparison_id, known)

    def _issue(self, comparison_id: str, shown: Shown) -> None:
        """Gives out a ballot for every two panels: those of equal bytes too, which keep the order of the panels."""
        sides = [(shown.generation_ids[left], shown.generation_ids[right]) for left, right in shown.pairs()]
        shown.ballot_ids = self._store.create_ballots(
            [NewBallot(*each, shown.participant_id, shown.blind, comparison_id=comparison_id) for each in sides]
        )

    def _reveal(self, comparison_id: str, known: Shown, pick: Pick) -> RevealedComparison:
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
        return RevealedComparison(
            comparison_id, panels, pick, known.blind, known.workbench, shared_settings(generations)
        )


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
