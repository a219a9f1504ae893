"""How fast votes are kept, and what is lost when the process is killed: the Store against lines appended to a file.

    python -m benchmarks.votes.vote_writes                                     # SQLite, PostgreSQL and JSON lines
    python -m benchmarks.votes.vote_writes --ways sqlite jsonl --seconds 5 --kills 10

Ways, in one run and taking turns:

jsonl           what arenas do: open the file for appending, write a JSON line, close it; nothing says it is on the disk
jsonl-open      the same with the file kept open, as a logger does
jsonl-fsync     the first with an fsync: a vote is on the disk before the thanks, as the Store's is
sqlite          Store.vote on SQLite (synchronous=FULL)
postgresql      Store.vote on a temporary PostgreSQL with fsync on

Speed: --threads threads vote for --seconds; votes a second, milliseconds by the clock for a vote, and of this process's
processor (a server's is not in it).
Kills: a process of four threads announces each vote, gives it, and says thanks. It is killed with SIGKILL after a
random time, and what was announced without thanks is given again, as a person would press again. Lost: thanked for and
not there. Double: there twice. Torn: lines that no program can read. A power cut is not tried: the first two ways would
lose what was not synced.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import select

from collection.database.models import VoteRow
from collection.store import Store
from collection.types import NewBallot
from tests.collection.helpers import add_comparison
from tests.programs.postgres import PostgresCluster

ROOT = Path(__file__).parents[2]
WAYS = ("jsonl", "jsonl-open", "jsonl-fsync", "sqlite", "postgresql")
PEOPLE = 20
TORN = "torn"

Vote = Callable[[str, str], None]  # (ballot, participant)


@contextmanager
def writer(way: str, place: str) -> Iterator[Vote]:
    """What keeps a vote in this way; `place` is a file, or a database URL."""
    if not way.startswith("jsonl"):
        with Store(place, Path(tempfile.gettempdir()) / "npo-vote-writes") as store:
            yield lambda ballot, person: store.vote(ballot, person, "left") and None
        return
    kept = open(place, "a", encoding="utf-8") if way == "jsonl-open" else None  # noqa: SIM115

    def append(ballot: str, person: str) -> None:
        line = {
            "tstamp": time.time(),
            "type": "leftvote",
            "models": ["base", "aligned"],
            "ballot": ballot,
            "who": person,
        }
        if kept is not None:
            kept.write(json.dumps(line) + "\n")
            return
        with open(place, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            if way == "jsonl-fsync":
                file.flush()
                os.fsync(file.fileno())

    yield append
    if kept is not None:
        kept.close()


def kept_votes(way: str, place: str) -> Counter[str]:
    """ballot -> how often it is there."""
    if not way.startswith("jsonl"):
        with Store(place, Path(tempfile.gettempdir()) / "npo-vote-writes") as store, store.reading() as session:
            return Counter(session.scalars(select(VoteRow.ballot_id)))
    found: Counter[str] = Counter()
    for line in Path(place).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found[json.loads(line)["ballot"]] += 1
        except ValueError:
            found[TORN] += 1
    return found


def ballots_at(way: str, place: str, count: int) -> list[tuple[str, str]]:
    """New (ballot, participant) pairs to vote on."""
    if way.startswith("jsonl"):
        return [(f"{random.getrandbits(128):032x}", f"person {number % PEOPLE}") for number in range(count)]
    with Store(place, Path(tempfile.gettempdir()) / "npo-vote-writes") as store:
        ids = add_comparison(store, f"c{random.getrandbits(64)}")
        people = [store.create_participant() for _ in range(PEOPLE)]
        asked = [people[number % PEOPLE] for number in range(count)]
        issued = store.create_ballots([NewBallot(ids["base"], ids["aligned"], person) for person in asked])
        return list(zip(issued, asked, strict=True))


def in_threads(votes: list[tuple[str, str]], threads: int, one: Callable[[str, str], None]) -> None:
    """Gives the votes, each thread its share."""
    shares = [votes[number::threads] for number in range(threads)]
    running = [threading.Thread(target=lambda share=share: [one(*vote) for vote in share]) for share in shares]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def speed(way: str, place: str, seconds: float, threads: int) -> tuple[float, float, float, float]:
    """(votes/s, median ms, 99th percentile ms, processor ms) of a vote."""
    votes, times = ballots_at(way, place, int(seconds * (20_000 if way.startswith("jsonl") else 400))), []
    with writer(way, place) as vote:
        end, processor, begin = time.perf_counter() + seconds, time.process_time(), time.perf_counter()

        def one(ballot: str, person: str) -> None:
            started = time.perf_counter()
            if started < end:
                vote(ballot, person)
                times.append(time.perf_counter() - started)

        in_threads(votes, threads, one)
        took, worked = time.perf_counter() - begin, time.process_time() - processor
    times.sort()
    return (
        len(times) / took,
        1e3 * times[len(times) // 2],
        1e3 * times[int(0.99 * len(times))],
        1e3 * worked / len(times),
    )


def serve(way: str, place: str) -> None:
    """The process that is killed: takes (ballot, participant) lines, says "try" before and "ok" after each vote."""
    votes = [tuple(line.split("\t")) for line in sys.stdin.read().splitlines()]
    turn = threading.Lock()

    def say(what: str, ballot: str) -> None:
        with turn:
            os.write(1, f"{what} {ballot}\n".encode())  # past Python's buffer, whole lines

    with writer(way, place) as vote:
        os.write(1, b"ready -\n")

        def one(ballot: str, person: str) -> None:
            say("try", ballot)
            vote(ballot, person)
            say("ok", ballot)

        in_threads(votes, 4, one)  # type: ignore[arg-type]


def killed(way: str, place: str, kills: int, rng: random.Random) -> tuple[int, int, int, int, int]:
    """(thanked for, given again, lost, double, torn) after so many kills."""
    enough = 20_000 if way.startswith("jsonl") else 400  # for the longest life
    waiting, thanked, again = ballots_at(way, place, enough * (kills + 1)), set(), 0
    for _ in range(kills):
        command = [sys.executable, "-m", "benchmarks.votes.vote_writes", "--serve", way, place]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join("\t".join(vote) for vote in waiting[:enough]))
        process.stdin.close()
        assert process.stdout.readline().startswith("ready")
        threading.Timer(rng.uniform(0.02, 0.6), process.send_signal, [signal.SIGKILL]).start()
        said = [line.split() for line in process.stdout if line.endswith("\n")]
        process.wait()
        done = {ballot for what, ballot in said if what == "ok"}
        tried = {ballot for what, ballot in said if what == "try"} - done
        thanked |= done
        again += len(tried)
        open_ones = [vote for vote in waiting if vote[0] not in done]
        waiting = sorted(open_ones, key=lambda vote: vote[0] not in tried)  # first what got no thanks
    with writer(way, place) as vote:
        for ballot, person in waiting[:10]:  # the last kill's too
            vote(ballot, person)
    found = kept_votes(way, place)
    torn = found.pop(TORN, 0)
    return len(thanked), again, len(thanked - found.keys()), sum(number - 1 for number in found.values()), torn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seconds", type=float, default=5, help="of a speed test (5)")
    parser.add_argument("--rounds", type=int, default=3, help="speed tests of each way, taking turns (3)")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (the one of temporary files)")
    parser.add_argument("--serve", nargs=2, metavar=("WAY", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        places = {way: str(folder / f"{way}.jsonl") for way in WAYS} | {"sqlite": f"sqlite:///{folder / 'npo.db'}"}
        if "postgresql" in options.ways:
            cluster = stack.enter_context(PostgresCluster(settings={}, folder=options.folder))
            places["postgresql"] = cluster.new_database()
        measured: dict[str, list[tuple[float, ...]]] = {way: [] for way in options.ways}
        for _ in range(options.rounds):
            for way in options.ways:
                measured[way].append(speed(way, places[way], options.seconds, options.threads))
        print(f"{options.threads} threads, median of {options.rounds} rounds of {options.seconds} s")
        print("| way | votes/s | ms, median | ms, 99% | processor ms | thanked | given again | lost | double | torn |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for way in options.ways:
            rates = [sorted(values)[len(values) // 2] for values in zip(*measured[way], strict=True)]
            fates = killed(way, places[way], options.kills, random.Random(0))
            shown = [f"{rates[0]:.0f}", *(f"{rate:.2f}" for rate in rates[1:]), *map(str, fates)]
            print(f"| {way} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
