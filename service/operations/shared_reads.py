"""What everybody may read is worked out once in a while, for all who ask meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

Read = TypeVar("Read")


class SharedReads:
    """Keeps each read for `keep_s` seconds; any number of threads may ask.

    While one thread works a read out anew, the others are given the old one: nobody waits but the first who ever asked.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._kept: dict[Hashable, tuple[float, Any]] = {}  # what was read, and when that began
        self._working: dict[Hashable, threading.Lock] = {}
        self._looking = threading.Lock()

    def get(self, key: Hashable, work: Callable[[], Read]) -> Read:
        """What `work` returned for this key within the last `keep_s` seconds, or returns now. What it raises is raised
        and not kept."""
        with self._looking:
            working = self._working.setdefault(key, threading.Lock())
            old = self._kept.get(key)
        if old is not None and (self._is_fresh(old) or not working.acquire(blocking=False)):
            return cast(Read, old[1])
        if old is None:
            working.acquire()
        try:
            now = self._kept.get(key)  # another thread may have been first
            if now is not None and self._is_fresh(now):
                return cast(Read, now[1])
            began_s = time.monotonic()
            read = work()
            self._kept[key] = began_s, read
            return read
        except Exception:
            if now is None:
                self._working.pop(key, None)  # nothing is remembered of what cannot be read
            raise
        finally:
            working.release()

    def _is_fresh(self, kept: tuple[float, Any]) -> bool:
        return time.monotonic() - kept[0] < self._keep_s
