"""How long results take on a million votes, and how that compares with counting the votes themselves.

    python -m benchmarks.million_votes                                   # SQLite in a temporary folder
    python -m benchmarks.million_votes --database-url postgresql://user@host/empty --votes 1000000

Fills an empty database with random votes (half a minute), then times the summary of the Results page, and a plain
GROUP BY over the votes for the ratio. Medians of --repeats in one run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import numpy as np
from sqlalchemy import func, insert, select

from collection.models import BallotRow, GenerationRow, ParticipantRow, VoteRow
from collection.report import summarise
from collection.store import Store
from collection.tallies import COUNTS, count_everything

VARIANTS = ("aligned", "aligned_npo", "base")
ORDERS = tuple(permutations(VARIANTS, 2))
CHOICES = ("left", "right", "tie", "both_bad")
CHUNK = 20_000


def fill(store: Store, votes: int, people: int, comparisons: int) -> None:
    """Random votes, spread evenly over people, comparisons, pairs of variants and a month."""
    rng = np.random.default_rng(0)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    shared = {"family": "emoji", "modality": "image"}
    settings = {"negative_prompt": "", "alpha": 1, "beta": 1, "guidance_scale": 4, "steps": 20, "scheduler": "ddim"}
    unsaid = {"withdrawn": False, "study": None, "flag": None, "response_time_s": None}
    size = {"width_px": 128, "height_px": 128, "frames": 1, "versions": {}, "elapsed_s": 1.0, "media_type": "image/png"}
    with store.writing() as session:
        session.execute(insert(ParticipantRow), [{"id": f"p{number}"} for number in range(people)])
        session.execute(
            insert(GenerationRow),
            [
                {**shared, **settings, **size, "id": f"{number}-{variant}", "comparison_id": f"c{number}"}
                | {
                    "prompt": f"prompt {number}",
                    "seed": number,
                    "variant": variant,
                    "media_sha256": f"{number}{variant}",
                }
                for number in range(comparisons)
                for variant in VARIANTS
            ],
        )
        for start in range(0, votes, CHUNK):
            numbers = range(start, min(start + CHUNK, votes))
            pairs = [ORDERS[order] for order in rng.integers(len(ORDERS), size=len(numbers))]
            choices = rng.choice(4, size=len(numbers), p=(0.4, 0.35, 0.15, 0.1))
            ballots, cast = [], []
            for number, (left, right), choice in zip(numbers, pairs, choices, strict=True):
                moment = begin + timedelta(seconds=2.5 * number)
                own = {"participant_id": f"p{number % people}", "blind": True, "kind": "normal", "created_at": moment}
                at = number * 7919 % comparisons
                sides = {"left": left, "right": right}
                ids = {f"{side}_generation_id": f"{at}-{variant}" for side, variant in sides.items()}
                ballots.append({**own, **ids, "id": f"b{number}", "comparison_id": f"c{at}", "study": None})
                named = {f"{side}_variant": variant for side, variant in sides.items()}
                said = {"choice": CHOICES[choice], "first_choice": CHOICES[choice], "changed_at": moment}
                cast.append({**own, **shared, **named, **said, "id": f"v{number}", "ballot_id": f"b{number}"} | unsaid)
            connection = session.connection()
            connection.execute(insert(BallotRow.__table__), ballots)
            connection.execute(insert(VoteRow.__table__), cast)
        count_everything(session)


def count_the_votes(store: Store) -> None:
    """What the summary would have to begin with if there were no count tables."""
    columns = (VoteRow.participant_id, VoteRow.left_variant, VoteRow.right_variant, VoteRow.choice)
    with store.reading() as session:
        session.execute(select(*columns, func.count()).where(*COUNTS).group_by(*columns)).all()


def medians_s(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """(wall clock, this process's CPU): the second holds on a busy machine too, but not for a database server."""
    times = []
    for _ in range(repeats):
        started = (time.perf_counter(), time.process_time())
        run()
        times.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", help="an empty database; default: SQLite in a temporary folder")
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=5_000)
    parser.add_argument("--comparisons", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.database_url or f"sqlite:///{Path(folder) / 'npo.db'}"
        with Store(url, folder) as store:
            started_s = time.perf_counter()
            fill(store, options.votes, options.people, options.comparisons)
            print(f"filled with {options.votes:,} votes in {time.perf_counter() - started_s:.0f} s")
            summarise(store)  # imports and caches
            summary_s, summary_cpu_s = medians_s(lambda: summarise(store), options.repeats)
            counting_s, counting_cpu_s = medians_s(lambda: count_the_votes(store), options.repeats)
            summary = summarise(store)
    print(f"{summary.totals.votes:,} votes by {summary.totals.participants:,} people")
    print(f"summary of the Results page, from the count tables: {summary_s:.3f} s, CPU {summary_cpu_s:.3f} s")
    print(f"counting the votes per person alone, without them:  {counting_s:.3f} s, CPU {counting_cpu_s:.3f} s")
    print(f"the second takes {counting_s / summary_s:.1f} times as long as the first")


if __name__ == "__main__":
    main()
