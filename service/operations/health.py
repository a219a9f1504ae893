"""Whether the app works, and what holds at this moment: for /healthz, and for /metrics beside what was counted."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import metadata

from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import REGISTRY, Collector

from collection.store import Store
from service.arena.compare import CompareService
from service.errors import INPUT_ERRORS
from service.generation.generation_queue import Desk

logger = logging.getLogger(__name__)

TOLD_VERSIONS = ("torch", "diffusers", "peft", "gradio", "sqlalchemy")


@dataclass(frozen=True)
class State:
    """How it is now. `database` is "reachable", or "away": what is wrong with it is in the log."""

    ready: bool
    stopping: bool
    database: str
    model: str
    waiting: int
    waiting_limit: int
    busy_s: float
    last_vote_at: datetime | None
    uptime_s: float


class Health:
    """Looks at the database, the line and the model; it never raises."""

    def __init__(self, store: Store, desk: Desk, compare: CompareService) -> None:
        self._store = store
        self._desk = desk
        self._compare = compare
        self._started_s = time.monotonic()

    def look(self) -> State:
        """One look, with one short query."""
        last_vote_at, database = None, "reachable"
        try:
            last_vote_at = self._store.last_vote_at()
        except INPUT_ERRORS as error:
            database = "away"
            logger.warning("%s", error)
        return State(
            ready=database == "reachable" and not self._desk.closed,
            stopping=self._desk.closed,
            database=database,
            model="warming up" if self._compare.warming_up else "ready",
            waiting=self._desk.waiting,
            waiting_limit=self._desk.most,
            busy_s=round(self._desk.busy_s, 3),
            last_vote_at=last_vote_at,
            uptime_s=round(time.monotonic() - self._started_s, 1),
        )


@cache
def versions() -> dict[str, str]:
    """Of Python and the libraries that matter."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in TOLD_VERSIONS}


class Present(Collector):
    """What holds at this moment, looked up when it is asked for."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges."""
        state = self._health.look()
        last = state.last_vote_at
        for name, told, value in (
            ("npo_ready", "1 when the database answers and the app is not about to stop", float(state.ready)),
            ("npo_queue_waiting", "Comparisons in line", float(state.waiting)),
            ("npo_queue_limit", "How many the line holds", float(state.waiting_limit)),
            ("npo_device_busy_seconds", "How long the present generation has lasted", state.busy_s),
            ("npo_last_vote_timestamp_seconds", "When the last vote was given", last.timestamp() if last else 0.0),
        ):
            yield GaugeMetricFamily(name, told, value=value)


def exposition(health: Health) -> bytes:
    """Everything, in Prometheus' text format."""
    present = CollectorRegistry()
    present.register(Present(health))
    return generate_latest(REGISTRY) + generate_latest(present)
