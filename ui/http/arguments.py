"""Whether an endpoint can be called with what somebody sent: how many arguments, their types, their lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from pydantic import ValidationError, validate_call

from service.errors import InputError

Endpoint = Callable[..., dict[str, Any]]

LONGEST_TEXT = 4000


def checked(endpoint: Endpoint) -> Endpoint:
    """`endpoint` with its arguments checked against its annotations; InputError names the first that is wrong."""
    validated = validate_call(endpoint)

    @wraps(endpoint)
    def call(*args: Any, **kwargs: Any) -> dict[str, Any]:
        for value in (*args, *kwargs.values()):
            check_text(value)
        try:
            return validated(*args, **kwargs)
        except ValidationError as error:
            raise InputError(_sentence(endpoint.__name__, error)) from None

    return call


def check_text(value: object) -> None:
    """Raises InputError for text, also inside a mapping, that is longer than any that is asked for."""
    for text in (*value.keys(), *value.values()) if isinstance(value, Mapping) else (value,):
        if isinstance(text, str) and len(text) > LONGEST_TEXT:
            raise InputError(f"A text of {len(text):,} characters was given; give {LONGEST_TEXT:,} at most.")


def _sentence(name: str, error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"/{name} cannot be called so: {where}: {first['msg'].lower()}; /gradio_api/info says what it takes."
