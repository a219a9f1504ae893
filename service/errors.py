"""What the callers of a service catch: the user's mistakes, from whichever core noticed them."""

from __future__ import annotations

from collection.errors import InputError as CollectionInputError
from npo_core.errors import InputError

INPUT_ERRORS = (InputError, CollectionInputError)
"""Every exception that is one sentence for a person: what was given, what is allowed, what to do."""

__all__ = ["INPUT_ERRORS", "InputError"]
