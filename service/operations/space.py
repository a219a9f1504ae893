"""What differs on a Hugging Face Space: nobody can run a command there."""

from __future__ import annotations

import logging

from npo_core.catalog import hub
from npo_core.catalog.families import get_family
from service.errors import InputError

logger = logging.getLogger(__name__)


def fetch_at_start(family: str) -> None:
    """Fetches what the chosen family lacks. Where that fails it is logged, and the lab serves the shipped family."""
    chosen = get_family(family)
    try:
        hub.fetch(chosen, logger.info)
    except InputError as error:
        logger.error("%s", error)
