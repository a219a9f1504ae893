from __future__ import annotations

import pytest

from collection.errors import REFUSALS
from service.arena.limits import SETTINGS, Limits, Turnstile, read_limits
from service.errors import InputError, TooOftenError
from service.operations.metrics import REFUSED, voting


def test_limits_come_from_the_environment_and_have_defaults() -> None:
    assert read_limits({}) == read_limits(dict.fromkeys(SETTINGS, "")) == Limits()
    assert read_limits(dict.fromkeys(SETTINGS, "7")) == Limits(7, 7, 7, 7, 7)
    for wrong in ("0", "-1", "many", "1.5", "99999999", "٣"):
        with pytest.raises(InputError, match="give a whole number"):
            read_limits({"NPO_MAX_WAITING": wrong})


def test_each_person_has_a_limit_of_their_own() -> None:
    turnstile = Turnstile(Limits(votes_per_minute=3, generations_per_minute=1, newcomers_per_minute=2))
    for _ in range(3):
        turnstile.vote("one")
    with pytest.raises(TooOftenError, match="More than 3 answers within a minute"):
        turnstile.vote("one")
    turnstile.vote("another")
    turnstile.generation("one")
    with pytest.raises(TooOftenError, match="1 comparisons"):
        turnstile.generation("one")
    turnstile.newcomer()
    turnstile.newcomer()
    with pytest.raises(TooOftenError, match="2 newcomers"):
        turnstile.newcomer()


def test_what_is_refused_for_its_pace_is_counted() -> None:
    assert "too_often" in REFUSALS
    before = REFUSED.labels("too_often")._value.get()
    with pytest.raises(TooOftenError), voting("pool"):
        raise TooOftenError("slowly")
    assert REFUSED.labels("too_often")._value.get() == before + 1
