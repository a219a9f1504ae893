"""The one exception a caller shows to a person."""


class InputError(ValueError):
    """The user's input was wrong: one sentence saying what was given, what is allowed and what to do."""


class FlaggedError(InputError):
    """The family's safety checker flagged what was made: it is not to be shown or kept."""
