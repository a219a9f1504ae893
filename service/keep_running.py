"""Starts the app, and starts it again whenever it dies: a restart policy for where there is no container engine.

    python -m service.keep_running                      # python app.py
    python -m service.keep_running python -m something  # another command

It waits longer each time (0.5 s to 5 s) as long as the app dies young, and ends where the app ends by itself: with
status 0, or with 2 for a wrong setting. SIGTERM and Ctrl-C are handed on, and the app finishes what runs.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from service.operations import logs

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
OLD_S = 60.0  # an app that lived so long did not die of its start
BY_ITSELF = (0, 2)

logger = logging.getLogger(__name__)


class Keeper:
    """Runs one command for as long as it is wanted."""

    def __init__(self, command: Sequence[str], pause: Callable[[float], None] = time.sleep) -> None:
        self._command = list(command)
        self._pause = pause
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Hands a signal on; the app is not started again."""
        self._stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def run(self) -> int:
        """Until the app ends by itself or was asked to; its exit status."""
        pause_s = FIRST_PAUSE_S
        while True:
            started_s = time.monotonic()
            self._process = subprocess.Popen(self._command)
            status = self._process.wait()
            if self._stopping or status in BY_ITSELF:
                return status
            if time.monotonic() - started_s > OLD_S:
                pause_s = FIRST_PAUSE_S
            logger.error("The app ended with status %d; starting it again in %.1f s.", status, pause_s)
            self._pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            if self._stopping:
                return 0


def main(command: Sequence[str]) -> int:
    """Runs `command`, by default the app."""
    logs.configure()
    keeper = Keeper(command or [sys.executable, "app.py"])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, keeper.stop)
    return keeper.run()


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
    else:
        sys.exit(main(sys.argv[1:]))
