"""The one exception a caller shows to a person."""


class InputError(ValueError):
    """The user's input was wrong: one sentence saying what was given, what is allowed and what to do."""
