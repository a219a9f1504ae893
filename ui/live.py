"""Runs a generation apart and hands its progress to a streaming handler as it comes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from PIL import Image

from service.arena.compare import BlindProgress, ComparisonView, OnBlindStep
from service.generation.generation_queue import OnWait
from service.generation.low_priority import start_apart
from ui.components.panels import wants_preview


@dataclass(frozen=True)
class LiveStep:
    """A step that is done, with the newest previews, decoded while the generator stood still."""

    step: int
    total_steps: int
    images: tuple[Image.Image, ...]


@dataclass(frozen=True)
class LiveWait:
    """The place in the line, 1 for the next."""

    place: int


Event = LiveWait | LiveStep | ComparisonView


def follow(run: Callable[[OnBlindStep, OnWait], ComparisonView]) -> Iterator[Event]:
    """Yields the places in the line, every step of `run` and at last what it returned; raises what it raised.

    A visitor who leaves does not stop the run: it ends in the background, and its pictures are stored.
    """
    events: queue.SimpleQueue[LiveWait | LiveStep | Future[ComparisonView]] = queue.SimpleQueue()
    images: tuple[Image.Image, ...] = ()

    def on_step(progress: BlindProgress) -> None:
        nonlocal images
        if wants_preview(progress):
            images = tuple(progress.preview())
        events.put(LiveStep(progress.step, progress.total_steps, images))

    def on_wait(place: int) -> None:
        events.put(LiveWait(place))

    start_apart(lambda: run(on_step, on_wait), "compare").add_done_callback(events.put)
    while True:
        event = events.get()
        if isinstance(event, Future):
            yield event.result()
            return
        yield event
