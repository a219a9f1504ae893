"""How long the next ballot takes beside people who read the results, and beside strangers who ask for ballots.

    python -m benchmarks.votes.readers                   # 8 readers of the endpoint /results, as fast as it answers
    python -m benchmarks.votes.readers --read page       # of the page /results
    python -m benchmarks.votes.readers --read newcomers  # of first ballots: /next_ballot without a participant

The app is `python app.py` in a process of its own, over a pool of comparisons with votes; the readers run in another
process, the one person who is measured in this one. All share the machine's cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.votes.voters import app_running, client_for, picture, quantiles_ms
from collection.store import Store

READ = ("results", "page", "newcomers")
PAUSE_S = 0.1  # between two ballots of the person who is measured


def fill_pool(store: Store, comparisons: int, people: int) -> None:
    """Comparisons of three pictures, and `people` who each judged 20 of them."""
    for number in range(comparisons):
        made = [picture(f"a thing number {number}", number, name, f"pool-{number}") for name in ("base", "a", "a_npo")]
        store.add_generations(made)
    for number in range(people):
        person, rng = store.create_participant(), random.Random(number)
        for _ in range(20):
            ballot = store.next_ballot(person, rng)
            if ballot is not None:
                store.vote(ballot.ballot_id, person, rng.choice(("left", "right", "tie")))


async def read(address: str, what: str, readers: int, seconds: float) -> int:
    """Reads as fast as it is answered; returns how often."""
    ends_s, count = time.monotonic() + seconds, 0

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal count
        while time.monotonic() < ends_s:
            if what == "page":
                await client.get("results")
            else:
                name = "results" if what == "results" else "next_ballot"
                await client.post(f"gradio_api/run/{name}", json={"data": []})
            count += 1

    async with client_for(address, readers) as client:
        await asyncio.gather(*(one(client) for _ in range(readers)))
    return count


def ask(address: str, seconds: float) -> list[float]:
    """One person fetches a ballot and answers it, again and again; how long each took to come."""
    times_s, person, ends_s = [], "", time.monotonic() + seconds
    with httpx.Client(base_url=address, timeout=60) as client:
        while time.monotonic() < ends_s:
            started_s = time.monotonic()
            shown = client.post("gradio_api/run/next_ballot", json={"data": [person]}).raise_for_status()
            times_s.append(time.monotonic() - started_s)
            told = shown.json()["data"][0]
            person = told["participant_id"]
            if told["ballot_id"] is not None:
                client.post("gradio_api/run/vote", json={"data": [told["ballot_id"], "tie", person]})
            time.sleep(PAUSE_S)
    return times_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", choices=READ, default="results")
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--reading", metavar="ADDRESS", help=argparse.SUPPRESS)  # the process of the readers
    options = parser.parse_args()
    if options.reading:
        print(asyncio.run(read(options.reading, options.read, options.readers, options.seconds)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'npo.db'}"
        with Store(url, folder) as store:
            fill_pool(store, options.comparisons, options.people)
        with app_running(url, folder) as (address, _):
            alone_s = ask(address, options.seconds)
            same = [f"--read={options.read}", f"--readers={options.readers}", f"--seconds={options.seconds + 2}"]
            command = [sys.executable, "-m", "benchmarks.votes.readers", "--reading", address, *same]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reading:
                time.sleep(2.0)  # until Python has started
                beside_s = ask(address, options.seconds)
                reads = int(reading.communicate()[0])
    told = {
        "read": options.read,
        "readers": options.readers,
        "reads/s": round(reads / (options.seconds + 2), 1),
        "the next ballot alone, ms": quantiles_ms(alone_s),
        "beside the readers, ms": quantiles_ms(beside_s),
    }
    print(json.dumps(told, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
