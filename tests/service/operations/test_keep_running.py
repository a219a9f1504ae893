"""The keeper, with real processes that really die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.keep_running import FIRST_PAUSE_S, Keeper

ROOT = Path(__file__).parents[3]
COUNT = "import os, signal, sys, pathlib; p = pathlib.Path(sys.argv[1]); n = p.stat().st_size if p.exists() else 0; "
COUNT += "p.open('a').write('x'); "


def test_one_that_is_killed_comes_back_and_waits_longer_each_time(tmp_path: Path) -> None:
    dies_thrice = COUNT + "n < 3 and os.kill(os.getpid(), signal.SIGKILL)"
    pauses: list[float] = []
    keeper = Keeper([sys.executable, "-c", dies_thrice, str(tmp_path / "starts")], pauses.append)
    assert keeper.run() == 0
    assert (tmp_path / "starts").read_text() == "xxxx"
    assert pauses == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]


@pytest.mark.parametrize("status", [0, 2])
def test_one_that_ends_by_itself_is_left_alone(status: int, tmp_path: Path) -> None:
    keeper = Keeper([sys.executable, "-c", COUNT + f"sys.exit({status})", str(tmp_path / "starts")])
    assert keeper.run() == status
    assert (tmp_path / "starts").read_text() == "x"


def test_being_asked_to_stop_is_handed_on(tmp_path: Path) -> None:
    ends = f"""
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path({str(tmp_path / "left")!r}).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
pathlib.Path({str(tmp_path / "ready")!r}).touch()
time.sleep(60)
"""
    command = [sys.executable, "-m", "service.keep_running", sys.executable, "-c", ends]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ}) as keeper:
        deadline = time.monotonic() + 60
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(60) == 0
    assert (tmp_path / "left").exists()
