"""How much one person, and everybody together, may ask for. What is over a limit is refused in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from service.errors import InputError, TooOftenError


@dataclass(frozen=True)
class Limits:
    """What the settings allow. The defaults suit one machine and people, not scripts."""

    waiting: int = 12  # comparisons in line for the device, whoever asked for them
    generations_per_minute: int = 12  # of one person
    votes_per_minute: int = 120  # of one person
    newcomers_per_minute: int = 600  # all together: each is a row in the database, written with the first vote
    results_every_s: int = 3  # how old the results may be that everybody reads


SETTINGS: Mapping[str, str] = {
    "NPO_MAX_WAITING": "waiting",
    "NPO_GENERATIONS_PER_MINUTE": "generations_per_minute",
    "NPO_VOTES_PER_MINUTE": "votes_per_minute",
    "NPO_NEWCOMERS_PER_MINUTE": "newcomers_per_minute",
    "NPO_RESULTS_EVERY_S": "results_every_s",
}


def read_limits(environment: Mapping[str, str]) -> Limits:
    """The limits in `environment`, defaults for what is absent or empty; InputError for what is no whole number."""
    given = {}
    for setting, name in SETTINGS.items():
        text = environment.get(setting) or ""
        if text and not (text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000):
            raise InputError(
                f"The setting {setting} is {text!r}; give a whole number from 1 to 1000000, or leave it out."
            )
        if text:
            given[name] = int(text)
    return Limits(**given)


class Turnstile:
    """Counts what each person does; any number of threads may ask. It forgets what is older than a minute."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._window = MovingWindowRateLimiter(MemoryStorage())

    def generation(self, participant_id: str) -> None:
        """Counts a comparison or a grid; raises TooOftenError when this person had enough for now."""
        self._count("comparisons", self._limits.generations_per_minute, participant_id)

    def vote(self, participant_id: str) -> None:
        """Counts an answer; raises TooOftenError when nobody could look at so many pairs."""
        self._count("answers", self._limits.votes_per_minute, participant_id)

    def newcomer(self) -> None:
        """Counts somebody new; raises TooOftenError when more come than the lab can take."""
        self._count("newcomers", self._limits.newcomers_per_minute, "")

    def _count(self, what: str, most: int, who: str) -> None:
        if not self._window.hit(RateLimitItemPerMinute(most), what, who):
            raise TooOftenError(f"More than {most} {what} within a minute were asked for; wait a moment and try again.")
