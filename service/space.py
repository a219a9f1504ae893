"""What differs on a Hugging Face Space: nobody can run a command there, and a restart ends the process by a signal."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

from npo_core import hub
from npo_core.families import get_family
from service.errors import InputError

logger = logging.getLogger(__name__)


def fetch_at_start(family: str) -> None:
    """Fetches what the chosen family lacks. Where that fails it is logged, and the lab serves the shipped family."""
    chosen = get_family(family)
    try:
        hub.fetch(chosen, logger.info)
    except InputError as error:
        logger.error("%s", error)


def end_in_order() -> None:
    """Makes the signal that ends a container an ordinary end, so that the last votes are committed."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
