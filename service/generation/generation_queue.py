"""Whose turn it is on the device: one generation runs at a time, the others stand in a line of bounded length."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from npo_core.generator import Generator
from service.arena.limits import Limits
from service.errors import FullError

OnWait = Callable[[int], None]
"""Is told the place in the line, 1 for the next, whenever it changes."""


class Desk:
    """Shared by the services of all families of an app: one family's weights are in memory at a time."""

    def __init__(self, waiting: int = Limits.waiting) -> None:
        """waiting: how many may stand in line behind the one that generates."""
        self.most = waiting
        self._line: list[object] = []
        self._moved = threading.Condition()
        self._owner: int | None = None  # the thread at the desk, which may ask for another turn inside its own
        self._since_s = 0.0
        self._closed = False
        self._holder: Generator | None = None

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        with self._moved:
            return len(self._line)

    @property
    def free(self) -> bool:
        """Whether nobody generates or waits."""
        with self._moved:
            return self._owner is None and not self._line

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed

    @property
    def busy_s(self) -> float:
        """How long the present turn has lasted; 0 when the desk is free."""
        with self._moved:
            return 0.0 if self._owner is None else time.monotonic() - self._since_s

    @contextmanager
    def turn(self, generator: Generator, on_wait: OnWait | None = None) -> Iterator[None]:
        """Waits until nobody else generates; the weights of whoever was here before make room.

        Raises FullError when the line is full or the app is about to stop.
        """
        if self._owner == threading.get_ident():
            yield
            return
        self._stand_in_line(on_wait)
        try:
            if self._holder is not None and self._holder is not generator:
                self._holder.unload()
            self._holder = generator
            yield
        finally:
            with self._moved:
                self._owner = None
                self._moved.notify_all()

    def close(self) -> None:
        """Lets nobody in any more; whoever is at the desk may finish, whoever waits is told to come back."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def wait_until_free(self, timeout_s: float) -> bool:
        """Whether the last turn ended within `timeout_s`."""
        with self._moved:
            return self._moved.wait_for(lambda: self._owner is None, timeout_s)

    def _stand_in_line(self, on_wait: OnWait | None) -> None:
        ticket, told = object(), 0
        with self._moved:
            if len(self._line) >= self.most and self._owner is not None:
                raise FullError(
                    f"{len(self._line)} comparisons are waiting already, the most that the line holds; "
                    "try again in a minute."
                )
            self._line.append(ticket)
        try:
            while True:
                with self._moved:
                    if self._closed:
                        raise FullError("The lab is about to restart; try again in a minute.")
                    place = self._line.index(ticket) + 1
                    if self._owner is None and place == 1:
                        self._owner, self._since_s = threading.get_ident(), time.monotonic()
                        return
                    if place == told or on_wait is None:
                        self._moved.wait()
                        continue
                told = place
                on_wait(place)  # outside the lock: a slow visitor holds nobody up
        finally:
            with self._moved:
                self._line.remove(ticket)
                self._moved.notify_all()
