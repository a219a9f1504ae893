from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ui.components.warming import look_again


def test_the_line_stands_while_the_model_is_loaded_and_then_nobody_asks_again() -> None:
    services: Any = SimpleNamespace(compare=SimpleNamespace(warming_up=True))
    line, timer = look_again(services)
    assert line["visible"]
    assert "Warming up" in line["value"]
    assert timer.active
    services.compare.warming_up = False
    line, timer = look_again(services)
    assert not line["visible"]
    assert not timer.active
