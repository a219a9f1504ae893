"""Who takes part, without knowing who: signed tokens for browsers, keyed hashes of a platform's ids. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

from collection.types import Referral
from service.errors import InputError

PLATFORMS: Final = {  # platform -> its names of worker, task and session in the address that it sends people to
    "prolific": ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID"),
    "mturk": ("workerId", "hitId", "assignmentId"),
}
NOBODY: Final = "ASSIGNMENT_ID_NOT_AVAILABLE"  # MTurk's preview
PLATFORM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def token_of(participant_id: str, secret: str) -> str:
    """What a browser keeps: the id and a signature, so that an id cannot be made up."""
    return f"{participant_id}.{keyed_hash(participant_id, secret, 'token')}"


def participant_of(token: object, secret: str) -> str | None:
    """The id in a token that was signed with `secret`; None for anything else."""
    identity, _, signature = token.partition(".") if isinstance(token, str) else ("", "", "")
    expected = keyed_hash(identity, secret, "token")
    return identity if hmac.compare_digest(signature.encode(), expected.encode()) else None


def referral_of(query: object, secret: str) -> Referral | None:
    """Which platform sent this person, from the parameters of the page's address; None when none did.

    Raises InputError for a preview, in which nobody can take part yet, and for a link whose placeholders nobody filled
    in: all who follow it would be one person.
    """
    given = query if isinstance(query, Mapping) else {}
    for platform, names in PLATFORMS.items():
        worker, task, session = (str(given.get(name) or "") for name in names)
        if session == NOBODY:
            raise InputError("This is a preview; accept the task to take part.")
        for name, value in zip(names, (worker, task, session), strict=True):
            if value and (value == name or not PLATFORM_ID.fullmatch(value)):
                raise InputError(
                    f"The link says {name}={value[:60]!r}, which is no id; come by the link of your task, or tell "
                    "those who asked you that it is not filled in."
                )
        if worker:
            return Referral(
                platform,
                keyed_hash(worker, secret, platform, "worker"),
                keyed_hash(task, secret, platform, "task") if task else None,
                keyed_hash(session, secret, platform, "session") if session else None,
            )
    return None


def keyed_hash(text: str, secret: str, *purpose: str) -> str:
    """HMAC-SHA256 of `text`, 64 hexadecimal digits: without the secret nobody can test a guess."""
    key = ":".join([secret, *purpose])
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
