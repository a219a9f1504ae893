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
