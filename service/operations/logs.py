"""Log lines: one JSON object each where a program reads them, plain text on a terminal. Nothing in them tells who.

What is logged is what happened (a request's route, its status, how long it took), never an address, a participant, a
ballot or what somebody typed. Ids and codes that a fault or a library brings along are struck out on the way.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Final, TextIO, cast

from pythonjsonlogger.json import JsonFormatter

CHATTY: Final = ("httpx", "alembic", "limits")
WHO: Final = re.compile(r"[0-9a-f]{32,}|\b[A-HJ-NP-Z2-9]{5}-[A-HJ-NP-Z2-9]{5}\b")
"""Ids of people, ballots and pictures, signatures, keyed hashes; and the codes to withdraw with."""


class Nameless:
    """A stream on which nobody can be named, whoever writes: uvicorn and gradio print tracebacks of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text` without ids and codes."""
        return self._stream.write(WHO.sub("[id]", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def configure() -> None:
    """Sets the root logger up: INFO, to standard error, which names nobody from now on."""
    sys.stderr, sys.stdout = (cast(TextIO, Nameless(stream)) for stream in (sys.stderr, sys.stdout))
    handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    else:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "message": "event"}
        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for library in CHATTY:
        logging.getLogger(library).setLevel(logging.WARNING)
