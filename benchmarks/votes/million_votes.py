"""Whether the lab stays quick with millions of votes: the next ballot, a vote, results, and a streamed export.

    python -m benchmarks.votes.million_votes  # a million on SQLite, in a temporary folder
    python -m benchmarks.votes.million_votes --postgres --votes 10000000  # ten on a temporary PostgreSQL
    python -m benchmarks.votes.million_votes --database-url postgresql://user@host/empty --votes 1000000

Fills an empty database with made-up votes (a minute for each million), adds a study of --study-items prompts, and
times: the next ballot of the pool for somebody new and for somebody who judged much, the next ballot of the study, a
vote, the summary of the Results page, and a plain GROUP BY over the votes for the ratio. Medians of --repeats. Then it
streams --export votes through the CSV exporter and tells how much the memory of the process grew between the first
tenth and the end.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path

import psutil
from sqlalchemy import func, insert, select, text, update

from collection.database.models import BallotRow, ComparisonRow, GenerationRow, ParticipantRow, VoteRow
from collection.database.sql import batched
from collection.formats.exporters import write_csv
from collection.statistics.summary import summarise
from collection.store import Store
from collection.types import ExportedVote
from collection.votes.comparisons import note_comparisons
from collection.votes.contenders import contender_id, traits_of
from collection.votes.vote_counts import count_everything
from collection.votes.which_count import COUNTS
from tests.collection.study_helpers import enrol, make_study
from tests.programs.postgres import PostgresCluster

NO_ADAPTERS = {"aligned_sha256": None, "negative_sha256": None, "fps": None}
VARIANTS = ("aligned", "aligned_npo", "base")
ORDERS = tuple(permutations(VARIANTS, 2))
CHUNK = 500_000
NUMBERS = (
    "WITH RECURSIVE numbers(n) AS "
    "(SELECT CAST(:start AS BIGINT) UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :stop)"
)
MOMENT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f', '2026-01-01', (n * 0.25) || ' seconds') || '000'",
    "postgresql": "timestamptz '2026-01-01 00:00+00' + n * interval '0.25 seconds'",
}
SCATTERED = "(CAST(n AS BIGINT) * 2654435761 % 4294967296)"  # looks random, and is the same on every database


def fill(store: Store, votes: int, people: int, comparisons: int, *, own_server: bool = False) -> None:
    """Made-up votes, spread evenly over people, comparisons and pairs of variants; a quarter of a second apart.

    own_server: where we may, PostgreSQL is told not to look up every row that another refers to; `verify` can.
    """
    shared = {"family": "emoji", "modality": "image"}
    settings = {"negative_prompt": "", "alpha": 1, "beta": 1, "guidance_scale": 4, "steps": 20, "scheduler": "ddim"}
    size = {"width_px": 128, "height_px": 128, "frames": 1, "versions": {}, "elapsed_s": 1.0, "media_type": "image/png"}
    generations = [
        {**shared, **settings, **size, "id": f"{number}-{variant}", "comparison_id": f"c{number}"}
        | {"prompt": f"prompt {number}", "seed": number, "variant": variant, "media_sha256": f"{number}{variant}"}
        | {"contender": contender_id(traits_of({**NO_ADAPTERS, **shared, **settings, **size, "variant": variant}))}
        for number in range(comparisons)
        for variant in VARIANTS
    ]
    with store.writing() as session:
        session.execute(insert(ParticipantRow), [{"id": f"p{number}"} for number in range(people)])
        session.execute(insert(GenerationRow), generations)
    for start in range(0, votes, CHUNK):
        with store.writing() as session:
            if own_server:
                session.execute(text("SET LOCAL session_replication_role = replica"))
            scope = {"start": start, "stop": min(start + CHUNK, votes), "people": people, "comparisons": comparisons}
            for statement in _statements(store.url.get_backend_name()):
                session.execute(text(statement), scope)
    with store.writing() as session:
        count_everything(session)
        for some in batched([f"c{number}" for number in range(comparisons)]):
            note_comparisons(session, some)
        issued = select(func.count()).where(BallotRow.comparison_id == ComparisonRow.id).scalar_subquery()
        session.execute(update(ComparisonRow).values(ballots=issued).execution_options(synchronize_session=False))
        session.execute(text("ANALYZE"))
    if own_server:  # a server that has lived for a while did this by itself
        with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE)"))
            connection.execute(text("CHECKPOINT"))


def _statements(backend: str) -> list[str]:
    """What adds the ballots and votes numbered from :start to :stop."""
    moment = MOMENT[backend]
    pair = f"({SCATTERED} / 7 % {len(ORDERS)})"
    left, right = (
        " ".join([f"CASE {pair}", *(f"WHEN {place} THEN '{order[side]}'" for place, order in enumerate(ORDERS)), "END"])
        for side in (0, 1)
    )
    at = "(CAST(n AS BIGINT) * 7919 % :comparisons)"
    chance = f"({SCATTERED} % 100)"
    choice = f"CASE WHEN {chance} < 40 THEN 'left' WHEN {chance} < 75 THEN 'right' "
    choice += f"WHEN {chance} < 90 THEN 'tie' ELSE 'both_bad' END"
    yes, no = ("1", "0") if backend == "sqlite" else ("true", "false")
    sides = f"{at} || '-' || {left}, {at} || '-' || {right}"
    return [
        "INSERT INTO ballots (id, left_generation_id, right_generation_id, participant_id, blind, kind, "
        f"comparison_id, created_at) {NUMBERS} SELECT 'b' || n, {sides}, 'p' || (n % :people), {yes}, 'normal', "
        f"'c' || {at}, {moment} FROM numbers",
        "INSERT INTO votes (id, ballot_id, participant_id, choice, first_choice, withdrawn, family, modality, "
        f"left_variant, right_variant, blind, kind, created_at, changed_at) {NUMBERS} SELECT 'v' || n, 'b' || n, "
        f"'p' || (n % :people), {choice}, {choice}, {no}, 'emoji', 'image', {left}, {right}, {yes}, 'normal', "
        f"{moment}, {moment} FROM numbers",
    ]


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


def export_memory(store: Store, votes: int, file: Path) -> tuple[float, float]:
    """(votes/s, MB that the process grew by between the first tenth and the end) of an export of so many votes."""
    process, sizes = psutil.Process(), []

    def watched() -> Iterator[ExportedVote]:
        for number, vote in enumerate(itertools.islice(store.exported_votes(), votes)):
            if number % (votes // 10) == 0:
                sizes.append(process.memory_info().rss)
            yield vote

    started_s = time.perf_counter()
    written = write_csv(watched(), store.media, file)
    return written / (time.perf_counter() - started_s), (max(sizes[1:]) - sizes[1]) / 1e6


def measure(store: Store, repeats: int, study_items: int) -> None:
    """Times what people wait for."""
    rng = random.Random(0)
    plan = make_study(store, prompts=study_items)
    new = iter([store.create_participant() for _ in range(repeats + 1)])
    busy = iter([f"p{number}" for number in range(repeats + 1)])
    members = iter([enrol(store, plan.name).participant_id for _ in range(repeats + 1)])
    given: list[tuple[str, str]] = []

    def next_of(person: str) -> None:
        ballot = store.next_ballot(person, rng, family="emoji")  # as the app asks
        assert ballot is not None
        given.append((ballot.ballot_id, person))

    timed: dict[str, Callable[[], object]] = {
        "next ballot, somebody new": lambda: next_of(next(new)),
        "next ballot, somebody who judged much": lambda: next_of(next(busy)),
        "a vote": lambda: store.vote(*given.pop(), "left"),
        f"next ballot of a study of {study_items} prompts": lambda: store.next_study_ballot(plan.name, next(members)),
        "summary of the Results page, from the count tables": lambda: summarise(store),
        "counting the votes per person alone, without them": lambda: count_the_votes(store),
    }
    for name, run in timed.items():
        run()  # imports and caches
        wall, cpu = medians_s(run, repeats)
        print(f"{name + ':':<60} {1e3 * wall:9.1f} ms, CPU of this process {1e3 * cpu:8.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database-url", help="an empty database; default: SQLite in a temporary folder")
    where.add_argument("--postgres", action="store_true", help="a temporary PostgreSQL server, with fsync")
    parser.add_argument("--votes", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=5_000)
    parser.add_argument("--comparisons", type=int, default=2_000)
    parser.add_argument("--study-items", type=int, default=500)
    parser.add_argument("--export", type=int, default=200_000, help="votes to stream (200000)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = options.database_url or f"sqlite:///{folder / 'npo.db'}"
        if options.postgres:
            settings = {"shared_buffers": "1GB", "max_wal_size": "8GB", "maintenance_work_mem": "512MB"}
            url = stack.enter_context(PostgresCluster(settings)).new_database()
        store = stack.enter_context(Store(url, folder))
        started_s = time.perf_counter()
        fill(store, options.votes, options.people, options.comparisons, own_server=options.postgres)
        print(f"filled with {options.votes:,} votes in {time.perf_counter() - started_s:.0f} s", flush=True)
        measure(store, options.repeats, options.study_items)
        rate, grown_mb = export_memory(store, min(options.export, options.votes), folder / "votes.csv")
        print(f"export to CSV: {rate:.0f} votes/s, memory grew by {grown_mb:.1f} MB from the first tenth to the end")


if __name__ == "__main__":
    main()
