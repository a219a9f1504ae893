"""200 people vote over real HTTP: votes a second, how long a vote takes, and whether every one of them is kept.

    python -m benchmarks.votes.load  # 50 votes/s for a minute, SQLite in a temporary folder
    python -m benchmarks.votes.load --rate 20 --generating  # while one comparison after another is made
    python -m benchmarks.votes.load --rate 0  # as fast as it goes
    python -m benchmarks.votes.load --postgres  # on a temporary PostgreSQL server
    python -m benchmarks.votes.load --postgres --rate 20 --outage 10 # which is stopped and started in the middle

The app is `python app.py` in a process of its own; the voters run in this one and share its cores. A vote's time is
counted from the moment it was due to the answer, so waiting in line counts. Exit status 1: a vote was lost or double.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from benchmarks.votes.voters import (
    Ledger,
    Voter,
    add_options,
    app_running,
    client_for,
    cpu_s,
    quantiles_ms,
    reckon,
    study_to_vote_on,
    tell,
    vote_at_a_rate,
)
from collection.store import Store
from tests.programs.postgres import PostgresCluster

DEFAULTS = ("newest", "newest", "", "image", None, None)  # versions, family, modality, frames, fps


async def generate_all_the_time(address: str, times_s: list[float]) -> None:
    """One comparison after another, through the app's queue, until cancelled."""
    async with httpx.AsyncClient(base_url=address, timeout=None) as client:
        person = ""
        for seed in range(10**6):
            started_s = time.monotonic()
            asked = {"data": ["a red apple, 3d style", seed, "", *[None] * 5, person, *DEFAULTS]}
            event = (await client.post("gradio_api/call/generate", json=asked)).json()["event_id"]
            told = (await client.get(f"gradio_api/call/generate/{event}")).text
            if "event: complete" not in told:
                raise RuntimeError(f"a generation failed: {told[-300:]}")
            person = json.loads(told.rpartition("data: ")[2])[0]["participant_id"]
            times_s.append(time.monotonic() - started_s)


@dataclass
class Run:
    """What happened while people voted."""

    ledger: Ledger = field(default_factory=Ledger)
    took_s: float = 0.0
    made_s: list[float] = field(default_factory=list)  # of each comparison
    app_cpu_s: float = 0.0


async def take_away(server: PostgresCluster, after_s: float, for_s: float) -> None:
    """Stops the database's server in the middle of the voting and starts it again."""
    await asyncio.sleep(after_s)
    await asyncio.to_thread(server.stop)
    await asyncio.sleep(for_s)
    await asyncio.to_thread(server.start)


async def run(
    address: str, process: subprocess.Popen[bytes], server: PostgresCluster | None, options: argparse.Namespace
) -> Run:
    """Lets everybody join, then vote."""
    done = Run()
    ledger, made_s = done.ledger, done.made_s
    async with client_for(address, options.people) as client:
        voters = [Voter(client, ledger, number) for number in range(options.people)]
        for start in range(0, len(voters), 20):  # people do not all come in the same instant
            await asyncio.gather(*(voter.join() for voter in voters[start : start + 20]))
        ledger.ballot_s.clear()
        generating = asyncio.create_task(generate_all_the_time(address, made_s)) if options.generating else None
        await asyncio.sleep(1.0)
        before_s = cpu_s(process)
        outage = (
            asyncio.create_task(take_away(server, options.seconds / 3, options.outage))
            if server and options.outage
            else None
        )
        done.took_s = await vote_at_a_rate(voters, options.rate, options.seconds)
        done.app_cpu_s = cpu_s(process) - before_s
        if outage is not None:
            await outage
        if generating is not None:
            if generating.done():
                generating.result()
            generating.cancel()
            with suppress(asyncio.CancelledError):
                await generating
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--rate", type=float, default=50.0, help="votes a second in all; 0: as fast as it goes")
    parser.add_argument("--seconds", type=float, default=60.0)
    add_options(parser, prompts=100)
    parser.add_argument("--outage", type=float, default=0.0, help="seconds without PostgreSQL in the middle")
    parser.add_argument("--generating", action="store_true", help="make pictures all the while")
    options = parser.parse_args()
    if options.outage and not options.postgres:
        parser.error("--outage stops a temporary server; give --postgres too")
    with study_to_vote_on(options) as place:
        with app_running(place.url, place.folder) as (address, process):
            done = asyncio.run(run(address, process, place.server, options))
        with Store(place.url, place.folder) as store:
            reckoning = reckon(store, done.ledger)
    ledger, made_s = done.ledger, done.made_s
    told = {
        "people": options.people,
        "asked for, votes/s": options.rate or "as fast as it goes",
        "votes/s": round(len(ledger.vote_s) / done.took_s, 1),
        "CPU of the app, ms a vote": round(1000 * done.app_cpu_s / max(1, len(ledger.vote_s)), 2),
        "a vote, ms": quantiles_ms(ledger.vote_s),
        "the next pair, ms": quantiles_ms(ledger.ballot_s),
        "comparisons made": len(made_s),
        "a comparison, ms": quantiles_ms(made_s),
        "acknowledged": len(ledger.acknowledged),
        "retries": ledger.retries,
        "told meanwhile": ledger.put_off,
    }
    return tell(told, place.url, reckoning)


if __name__ == "__main__":
    sys.exit(main())
