"""What looks after the app reads here: /healthz, /healthz/live, /metrics."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.operations.health import Health, exposition, versions


def add_watch(app: FastAPI, health: Health) -> None:
    """Adds the three addresses to `app`."""

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Status 200 when votes can be taken, else 503, with what is known."""
        state = health.look()
        told = asdict(state) | {
            "live": True,
            "last_vote_at": state.last_vote_at and state.last_vote_at.isoformat(),
            "versions": versions(),
        }
        return JSONResponse(told, 200 if state.ready else 503)

    @app.get("/healthz/live")
    def live() -> JSONResponse:
        """Status 200 as long as the process answers at all."""
        return JSONResponse({"live": True})

    @app.get("/metrics")
    def metrics() -> Response:
        """In Prometheus' text format."""
        return Response(exposition(health), media_type=CONTENT_TYPE_LATEST)
