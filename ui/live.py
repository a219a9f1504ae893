"""Runs a generation in a thread and hands its progress to a streaming handler as it comes."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image

from service.compare import BlindProgress, ComparisonView, OnBlindStep
from ui.panels import wants_preview


@dataclass(frozen=True)
class LiveStep:
    """A step that is done, with the newest previews, decoded while the generator stood still."""

    step: int
    total_steps: int
    images: tuple[Image.Image, ...]


def follow(run: Callable[[OnBlindStep], ComparisonView]) -> Iterator[LiveStep | ComparisonView]:
    """Yields every step of `run` and at last what it returned; raises what it raised.

    A visitor who leaves does not stop the run: it ends in the background, and its pictures are stored.
    """
    events: queue.SimpleQueue[LiveStep | ComparisonView | BaseException] = queue.SimpleQueue()
    images: tuple[Image.Image, ...] = ()

    def on_step(progress: BlindProgress) -> None:
        nonlocal images
        if wants_preview(progress):
            images = tuple(progress.preview())
        events.put(LiveStep(progress.step, progress.total_steps, images))

    def work() -> None:
        try:
            events.put(run(on_step))
        except BaseException as error:
            events.put(error)

    context = contextvars.copy_context()  # with gradio's request, which a lent GPU is charged to
    threading.Thread(target=context.run, args=(work,), name="compare", daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        yield event
        if isinstance(event, ComparisonView):
            return
