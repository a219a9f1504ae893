"""The endpoints by plain HTTP, straight to the service, as the page Vote calls them:

    POST /gradio_api/run/NAME   {"data": [arguments in order]}   ->   {"data": [answer]}  or  {"error": "one sentence"}

gradio serves this address too, but builds a session with every component of every page for each request, which takes
many times as long as a vote. Its queue (/gradio_api/call/NAME, gradio_client) is for what generates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from service.errors import INPUT_ERRORS, FullError, RefusedError, TooOftenError, TryAgainError
from service.services import Services
from ui.components.html import FAULT
from ui.http.api import endpoints
from ui.http.arguments import Endpoint
from ui.http.pace import Pace

MOST_ARGUMENTS = 32
AT_ONCE = 4  # threads: more of them would only take the interpreter from each other, in the midst of transactions
READERS_AT_ONCE = 1  # who have threads and a pace of their own
QUEUED = "generate"  # takes seconds and has to stand in line

logger = logging.getLogger(__name__)


class Asked(BaseModel):
    """The arguments in order."""

    data: list[Any] = Field(max_length=MOST_ARGUMENTS)


def add_endpoints(app: FastAPI, services: Services) -> frozenset[str]:
    """Adds the address to `app`; returns the names that can be called there."""
    known = {name: endpoint for name, endpoint in endpoints(services).items() if name != QUEUED}

    at_once, readers, pace = CapacityLimiter(AT_ONCE), CapacityLimiter(READERS_AT_ONCE), Pace()

    @app.post("/gradio_api/run/{name}")
    async def run(name: str, asked: Asked) -> JSONResponse:
        reads = _only_reads(name, asked.data)
        if reads and not await pace.turn():
            return refusal(429, "More people read this than can be answered; try again in a moment.", 5)
        return await to_thread.run_sync(_answer, known, name, asked.data, limiter=readers if reads else at_once)

    return frozenset(known)


def _only_reads(name: str, arguments: list[Any]) -> bool:
    """Whether anybody may ask for this without end: the results, a study, a first ballot."""
    return name in ("results", "study") or (name in ("next_ballot", "arena") and not any(arguments[:1]))


def _answer(known: Mapping[str, Endpoint], name: str, arguments: list[Any]) -> JSONResponse:
    if name not in known:
        return refusal(404, f"There is no endpoint {name[:40]!r} here; {QUEUED} is at /gradio_api/call/{QUEUED}.")
    try:
        return JSONResponse({"data": [known[name](*arguments)]})
    except INPUT_ERRORS as error:
        status, wait_s = _status(error)
        return refusal(status, str(error), wait_s)
    except Exception:
        logger.exception("The endpoint %s failed.", name)
        return refusal(500, FAULT)


def _status(error: Exception) -> tuple[int, int | None]:
    """(status, seconds after which the same may be asked again, None where it would be refused again)."""
    if isinstance(error, TooOftenError):
        return 429, 30
    if isinstance(error, FullError | TryAgainError):
        return 503, 5
    return (403 if isinstance(error, RefusedError) else 400), None


def refusal(status: int, sentence: str, wait_s: int | None = None) -> JSONResponse:
    """One sentence as an answer."""
    return JSONResponse({"error": sentence}, status, headers={"Retry-After": str(wait_s)} if wait_s else None)
