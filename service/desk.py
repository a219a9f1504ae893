"""Whose turn it is on the device: one family's weights are in memory at a time, and one generation runs at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from npo_core.generator import Generator


class Desk:
    """Shared by the services of all families of an app."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holder: Generator | None = None

    @contextmanager
    def turn(self, generator: Generator) -> Iterator[None]:
        """Waits until nobody else generates; the weights of whoever was here before make room."""
        with self._lock:
            if self._holder is not None and self._holder is not generator:
                self._holder.unload()
            self._holder = generator
            yield
