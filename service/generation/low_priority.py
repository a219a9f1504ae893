"""A generation runs in a thread of its own that steps back behind the threads that take votes."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")

COURTESY = 10  # nice, 0 to 19: a vote takes milliseconds and somebody waits for it; a generation takes seconds


def start_apart(work: Callable[[], Result], name: str) -> Future[Result]:
    """Starts `work`; its threads, those of torch among them, give way to all others (Linux).

    It ends by itself: nobody has to wait for it.
    """
    future: Future[Result] = Future()

    def run() -> None:
        step_back()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    context = contextvars.copy_context()  # with gradio's request, which a lent GPU is charged to
    threading.Thread(target=context.run, args=(run,), name=name, daemon=True).start()
    return future


def step_back() -> None:
    """Lowers the priority of this thread for good, and of those that it starts; nothing where that is not possible."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), COURTESY)
