"""What is counted for Prometheus: how much, how fast, how often refused; never who, and nothing that tells variants."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram

from collection.errors import REFUSALS
from service.errors import INPUT_ERRORS, FullError, RefusedError, TooOftenError

VOTES = Counter("npo_votes", "Answers that were saved", ["where"])
REFUSED = Counter("npo_votes_refused", "Answers that were refused, by the reason", ["reason"])
VOTE_S = Histogram(
    "npo_vote_seconds",
    "Time to save an answer",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
GENERATIONS = Counter("npo_generations", "Comparisons and grids that were asked for", ["outcome"])
GENERATION_S = Histogram(
    "npo_generation_seconds", "Time to make a comparison, waiting included", buckets=(1, 2, 5, 10, 20, 40, 80, 160, 320)
)
REQUESTS = Counter("npo_http_requests", "Answers over HTTP", ["route", "status"])
REQUEST_S = Histogram(
    "npo_http_request_seconds",
    "Time from a request to the beginning of its answer",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
ADMIN_FAILURES = Counter("npo_admin_failures", "Wrong passwords, and names that are not on the list")

for reason in REFUSALS:  # a counter that was never counted up is shown as 0 and not left out
    REFUSED.labels(reason)


@contextmanager
def counting_refusals() -> Iterator[None]:
    """Counts what the block refuses."""
    try:
        yield
    except RefusedError as error:
        REFUSED.labels(error.reason).inc()
        raise
    except TooOftenError:
        REFUSED.labels("too_often").inc()
        raise


@contextmanager
def voting(where: str) -> Iterator[None]:
    """Counts and times one answer: saved when the block ends, refused when it raises what is refused."""
    started_s = time.perf_counter()
    with counting_refusals():
        yield
    VOTES.labels(where).inc()
    VOTE_S.observe(time.perf_counter() - started_s)


@contextmanager
def generating() -> Iterator[None]:
    """Counts and times one comparison or grid."""
    started_s = time.perf_counter()
    try:
        yield
    except (FullError, TooOftenError):
        GENERATIONS.labels("turned_away").inc()
        raise
    except INPUT_ERRORS:
        GENERATIONS.labels("refused").inc()
        raise
    except BaseException:
        GENERATIONS.labels("failed").inc()
        raise
    GENERATIONS.labels("made").inc()
    GENERATION_S.observe(time.perf_counter() - started_s)
