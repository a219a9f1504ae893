"""The app is killed (kill -9) at random moments while people vote, and has to come back without losing anything.

    python -m benchmarks.votes.kill                                      # 50 times, SQLite in a temporary folder
    python -m benchmarks.votes.kill --kills 5 --people 20
    python -m benchmarks.votes.kill --postgres                           # a temporary PostgreSQL server

The app runs under `python -m service.keep_running`, which starts it again. The voters ask again until they are
answered, as the page Vote does. Held against what they were told: every acknowledged vote is there with its choice, no
ballot has two, nothing is there that was not sent, and the database passes its integrity check. Exit status 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.votes.voters import (
    Ledger,
    Voter,
    add_options,
    app_running,
    client_for,
    quantiles_ms,
    reckon,
    study_to_vote_on,
    tell,
    vote_at_a_rate,
)
from collection.store import Store

KEEPER = (sys.executable, "-m", "service.keep_running")


def child_of(process: subprocess.Popen[bytes]) -> int | None:
    """The app that the keeper has started (Linux)."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0]) if children else None


async def kill_again_and_again(
    address: str, keeper: subprocess.Popen[bytes], kills: int, most_alive_s: float, away_s: list[float]
) -> None:
    """Waits until the app answers, lets it live for a random time, kills it, and notes how long it was away."""
    rng = random.Random(0)
    async with httpx.AsyncClient(base_url=address, timeout=5) as client:
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0, most_alive_s))
            app = child_of(keeper)
            if app is not None:
                os.kill(app, signal.SIGKILL)
            killed_s = time.monotonic()
            while True:
                await asyncio.sleep(0.1)
                with suppress(httpx.HTTPError):
                    if (await client.get("healthz")).status_code == 200:
                        break
            away_s.append(time.monotonic() - killed_s)


async def run(address: str, keeper: subprocess.Popen[bytes], options: argparse.Namespace) -> tuple[Ledger, list[float]]:
    """(what the voters were told, how long the app was away each time)."""
    ledger, away_s = Ledger(), list[float]()
    async with client_for(address, options.people) as client:
        voters = [Voter(client, ledger, number) for number in range(options.people)]
        await asyncio.gather(*(voter.join() for voter in voters))
        killing = asyncio.create_task(
            kill_again_and_again(address, keeper, options.kills, options.most_alive_s, away_s)
        )
        while not killing.done():
            await vote_at_a_rate(voters, options.rate, seconds=5)
        await killing
    return ledger, away_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--rate", type=float, default=20.0, help="votes a second in all, while the app is there")
    parser.add_argument("--most-alive-s", type=float, default=5.0, help="the longest that the app lives between kills")
    add_options(parser, prompts=200)
    options = parser.parse_args()
    with study_to_vote_on(options) as place:
        with app_running(place.url, place.folder, KEEPER, warm=False) as (address, keeper):
            ledger, away_s = asyncio.run(run(address, keeper, options))
        with Store(place.url, place.folder) as store:
            reckoning = reckon(store, ledger)
    told = {
        "kills": len(away_s),
        "away, s": {name: round(value / 1000, 2) for name, value in quantiles_ms(away_s).items()},
        "acknowledged": len(ledger.acknowledged),
        "sent": len(ledger.sent),
        "retries": ledger.retries,
    }
    return tell(told, place.url, reckoning)


if __name__ == "__main__":
    sys.exit(main())
