"""The line before the device: its order, its bound, its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from service.errors import FullError
from service.generation.generation_queue import Desk


def until(condition: Callable[[], bool], wait_s: float = 20) -> None:
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.005)


class Visitor:
    """Somebody who wants a turn and keeps it until told to go."""

    def __init__(self, desk: Desk, generator: Generator) -> None:
        self.places: list[int] = []
        self.served, self.go = threading.Event(), threading.Event()
        self.refused = ""
        self._desk, self._generator = desk, generator
        self._thread = threading.Thread(target=self._come)
        self._thread.start()

    def _come(self) -> None:
        try:
            with self._desk.turn(self._generator, self.places.append):
                self.served.set()
                self.go.wait()
        except FullError as error:
            self.refused = str(error)

    def leave(self) -> None:
        self.go.set()
        self._thread.join()


def test_everybody_hears_their_place_and_is_served_in_order(family: ModelFamily) -> None:
    desk, generator = Desk(waiting=3), Generator(family)
    visitors = []
    for number in range(4):
        visitors.append(Visitor(desk, generator))
        until(lambda: visitors[0].served.is_set())
        until(lambda number=number: desk.waiting == number)  # type: ignore[misc]
    assert [visitor.places for visitor in visitors] == [[], [1], [2], [3]]
    late = Visitor(desk, generator)
    until(lambda: bool(late.refused))
    assert "3 comparisons are waiting already" in late.refused
    for served in range(1, 4):
        assert not visitors[served].served.is_set()
        visitors[served - 1].leave()
        until(visitors[served].served.is_set)
        for place, visitor in enumerate(visitors[served + 1 :], start=1):
            # only then may the line move on: a place that has passed by the time its thread wakes is not told
            until(lambda visitor=visitor, place=place: visitor.places[-1] == place)  # type: ignore[misc]
    visitors[-1].leave()
    assert [visitor.places for visitor in visitors] == [[], [1], [2, 1], [3, 2, 1]]
    assert (desk.waiting, desk.busy_s) == (0, 0.0)


def test_a_turn_inside_a_turn_needs_no_line(family: ModelFamily) -> None:
    desk, generator = Desk(waiting=1), Generator(family)
    with desk.turn(generator), desk.turn(generator):
        assert desk.busy_s > 0


def test_a_closed_desk_finishes_who_is_there_and_sends_the_others_away(family: ModelFamily) -> None:
    desk, generator = Desk(), Generator(family)
    served = Visitor(desk, generator)
    until(served.served.is_set)
    waiting = Visitor(desk, generator)
    until(lambda: desk.waiting == 1)
    desk.close()
    until(lambda: "about to restart" in waiting.refused)
    assert not desk.wait_until_free(0.05)
    served.leave()
    assert desk.wait_until_free(5)
    with pytest.raises(FullError, match="about to restart"), desk.turn(generator):
        pass


def test_one_that_fails_gives_the_desk_free(family: ModelFamily) -> None:
    desk, generator = Desk(), Generator(family)
    with pytest.raises(ValueError, match="no"), desk.turn(generator):
        raise ValueError("no")
    with desk.turn(generator):
        pass
