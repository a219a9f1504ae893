"""The pace of those who only read, so that however many they are nobody who votes waits behind them."""

from __future__ import annotations

import asyncio
import time

PER_S = 40.0
LONGEST_WAIT_S = 5.0


class Pace:
    """Lets readers in one after another, `per_s` a second; used in one event loop."""

    def __init__(self, per_s: float = PER_S) -> None:
        self._every_s = 1 / per_s
        self._free_s = 0.0  # when the next one may come in

    async def turn(self) -> bool:
        """Waits for a turn; False, at once, where that would take longer than LONGEST_WAIT_S."""
        now_s = time.monotonic()
        mine_s = max(now_s, self._free_s)
        if mine_s - now_s > LONGEST_WAIT_S:
            return False
        self._free_s = mine_s + self._every_s
        await asyncio.sleep(mine_s - now_s)
        return True
