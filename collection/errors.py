"""The exceptions a caller shows to a person."""


class InputError(ValueError):
    """The user's input was wrong: one sentence saying what was given, what is allowed and what to do."""


class TryAgainError(InputError):
    """The database is busy or away for a moment; the same call may be made again.

    `undone` says that certainly nothing was kept. Without it the answer of the server is missing: whether it was kept
    is unknown, and only what may be said twice should be said again.
    """

    def __init__(self, message: str, *, undone: bool) -> None:
        super().__init__(message)
        self.undone = undone


class RefusedError(InputError):
    """A vote that nobody may give. `reason` is one of REFUSALS and tells nothing about any person."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


REFUSALS = {
    "unknown_ballot": "a ballot that was never issued: a forged id, or one not shown yet",
    "not_yours": "a ballot that was issued to somebody else",
    "expired": "a ballot that was open for too long",
    "answered": "another answer after the names were told",
    "too_early": "an answer before the pair could be seen",
    "wrong_door": "a ballot of a study where names are told, or the other way round",
    "forged_token": "a participant token that was not issued here",
    "too_often": "more from one person than anybody can do",
}
"""Why votes are refused; each is counted."""
