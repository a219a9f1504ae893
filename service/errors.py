"""What the callers of a service catch: the user's mistakes, from whichever core noticed them."""

from __future__ import annotations

from collection.errors import InputError as CollectionInputError
from collection.errors import RefusedError, TryAgainError
from npo_core.errors import InputError

INPUT_ERRORS = (InputError, CollectionInputError)
"""Every exception that is one sentence for a person: what was given, what is allowed, what to do."""


class TooOftenError(InputError):
    """Nothing is wrong but the pace; the same may be asked again in a while."""


class FullError(InputError):
    """The line is full, or the app is about to stop; the same may be asked again in a while."""


__all__ = ["INPUT_ERRORS", "FullError", "InputError", "RefusedError", "TooOftenError", "TryAgainError"]
