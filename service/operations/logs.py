"""Log lines: one JSON object each where a program reads them, plain text on a terminal. Nothing in them tells who.

What is logged is what happened (a request's route, its status, how long it took), never an address, a participant, a
ballot or what somebody typed.
"""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

CHATTY = ("httpx", "alembic", "limits")


def configure() -> None:
    """Sets the root logger up: INFO, to standard error."""
    handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "message": "event"}
        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
