"""What load.py and kill.py share: an app over a filled study, people who vote over HTTP, and the reckoning."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from collection.store import Store
from collection.studies.assignment import plan_items
from collection.studies.prompts import Prompt
from collection.studies.study_config import StudyPlan
from collection.types import Generation
from tests.programs.postgres import PostgresCluster

ROOT = Path(__file__).parents[2]
STUDY = "load"
CHOICES = ("left", "right", "tie", "both_bad")
RETRY_S = 0.2
GIVE_UP_S = 900.0  # an app that is killed again and again on a busy machine answers seldom


def fill_study(store: Store, prompts: int, ballots_per_participant: int) -> None:
    """A study whose pictures are noise as large as the emoji family's; nothing but their size matters here."""
    plan = StudyPlan(
        name=STUDY,
        variants=("base", "aligned", "aligned_npo"),
        prompts="emoji",
        votes_per_pair=100_000,
        ballots_per_participant=ballots_per_participant,
        min_view_s=0.0,
    )
    store.create_study(plan, plan_items(plan, [Prompt(f"a thing number {number}", "any") for number in range(prompts)]))
    for item in store.items_to_fill(STUDY):
        variants = plan.variants if item.kind == "normal" else (plan.variants[-1], "degraded")
        made = [picture(item.prompt, item.seed, variant, f"{STUDY}-{item.number}") for variant in variants]
        assert store.fill_item(item.id, made)


def picture(prompt: str, seed: int, variant: str, comparison_id: str) -> Generation:
    """A generation whose picture is noise, another for each seed and length of the variant's name."""
    noise = np.random.default_rng([seed % 2**32, len(variant)]).integers(0, 255, (16, 16, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return Generation(
        comparison_id=comparison_id,
        prompt=prompt,
        negative_prompt="",
        seed=seed,
        family="emoji",
        modality="image",
        variant=variant,
        aligned_id=None,
        aligned_sha256=None,
        negative_id=None,
        negative_sha256=None,
        alpha=1.0,
        beta=1.0,
        guidance_scale=4.0,
        steps=20,
        scheduler="ddim",
        width_px=128,
        height_px=128,
        frames=1,
        fps=None,
        versions={},
        elapsed_s=1.0,
        media=buffer.getvalue(),
        media_type="image/png",
        media_sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
        latents=None,
    )


@contextmanager
def app_running(
    database_url: str, data_dir: Path, command: Sequence[str] = (sys.executable, "app.py"), *, warm: bool = True
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """(address, process) of the app over this database, its model loaded unless `warm` is False; stopped at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "NPO_DATABASE_URL": database_url,
        "NPO_DATA_DIR": str(data_dir),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "NPO_GENERATIONS_PER_MINUTE": "1000",  # a script asks faster than people
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the app does not outlive this script
    with (data_dir / "app.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_until_ready(address, process, warm=warm)
        yield address, process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_until_ready(
    address: str, process: subprocess.Popen[bytes], *, warm: bool = True, wait_s: float = 400.0
) -> None:
    """Until the app says that it is ready: its database answers and, with `warm`, its model is loaded."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the app ended before it was ready; see app.log")
        with suppress(httpx.HTTPError, ValueError):
            health = httpx.get(f"{address}healthz", timeout=5).json()
            if health["ready"] and (not warm or health["model"] == "ready"):
                return
        time.sleep(0.3)
    raise RuntimeError(f"the app was not ready after {wait_s:.0f} s; see app.log")


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """The computing time that a process has used so far (Linux): it holds on a busy machine too."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Ledger:
    """What all voters were told: the only thing that the database is held against."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # ballot -> choice
    sent: dict[str, str] = field(default_factory=dict)
    vote_s: list[float] = field(default_factory=list)  # from the moment it was due to its answer
    ballot_s: list[float] = field(default_factory=list)
    retries: int = 0
    put_off: Counter[str] = field(default_factory=Counter)  # what people were told who had to ask again
    refusals: Counter[str] = field(default_factory=Counter)


class Voter:
    """One browser: it holds a ballot, answers it when it is time, and fetches the next, as the page Vote does."""

    def __init__(self, client: httpx.AsyncClient, ledger: Ledger, number: int) -> None:
        self._client = client
        self._ledger = ledger
        self._rng = random.Random(number)
        self._token = ""
        self._held: str | None = None

    async def join(self) -> None:
        """Agrees, and fetches the first pair."""
        joined = await self._call("join_study", STUDY, "1", self._token, {})
        self._token = joined["participant_id"]
        await self.fetch()

    async def fetch(self) -> None:
        """Fetches the next pair."""
        started_s = time.monotonic()
        self._held = (await self._call("next_ballot", self._token, STUDY, ""))["ballot_id"]
        self._ledger.ballot_s.append(time.monotonic() - started_s)

    async def vote(self, due_s: float) -> None:
        """Answers the pair that is held; a vote that waited for its turn is late, and that counts."""
        if self._held is None:
            raise RuntimeError("the study has no more pairs for this person; give it more")
        ballot, choice = self._held, self._rng.choice(CHOICES)
        self._ledger.sent[ballot] = choice
        told = await self._call("vote", ballot, choice, self._token, "", 1.0)
        assert told["ballot_id"] == ballot
        self._ledger.vote_s.append(time.monotonic() - due_s)
        self._ledger.acknowledged[ballot] = choice

    async def _call(self, name: str, *data: Any) -> Any:
        """Asks until there is an answer, as the page does; a refusal is an error of this script."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                answer = await self._client.post(f"gradio_api/run/{name}", json={"data": list(data)})
                if answer.status_code == 200:
                    return answer.json()["data"][0]
                if 400 <= answer.status_code < 500 and answer.status_code != 429:
                    self._ledger.refusals[answer.text[:200]] += 1
                    raise RuntimeError(f"/{name} was refused: {answer.status_code} {answer.text[:200]}")
                self._ledger.put_off[f"{answer.status_code} {answer.text[:200]}"] += 1
            except httpx.TransportError as error:
                self._ledger.put_off[type(error).__name__] += 1
            self._ledger.retries += 1
            await asyncio.sleep(RETRY_S * (0.5 + self._rng.random()))
        raise RuntimeError(f"/{name} was not answered within {GIVE_UP_S:.0f} s")


async def vote_at_a_rate(voters: Sequence[Voter], votes_per_s: float, seconds: float) -> float:
    """Everybody votes in turn, `votes_per_s` in all (0: as fast as it goes); returns how long it took."""
    started_s = time.monotonic()
    ends_s = started_s + seconds
    period_s = len(voters) / votes_per_s if votes_per_s else 0.0

    async def take_part(number: int, voter: Voter) -> None:
        due_s = started_s + period_s * number / len(voters)
        while due_s < ends_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            await voter.vote(due_s)
            await voter.fetch()
            due_s = due_s + period_s if period_s else time.monotonic()

    await asyncio.gather(*(take_part(number, voter) for number, voter in enumerate(voters)))
    return time.monotonic() - started_s


def client_for(address: str, people: int) -> httpx.AsyncClient:
    """One connection for each person."""
    limits = httpx.Limits(max_connections=people + 4, max_keepalive_connections=people + 4)
    return httpx.AsyncClient(base_url=address, limits=limits, timeout=60)


@dataclass(frozen=True)
class Reckoning:
    """The database against what the voters were told."""

    kept: int
    lost: int  # acknowledged, but absent or with another choice
    unasked: int  # in the database without having been sent with that choice
    double: int  # ballots with more than one vote
    problems: tuple[str, ...]  # what `python -m collection verify` finds


def reckon(store: Store, ledger: Ledger) -> Reckoning:
    """Reads every vote of the study back."""
    votes = [exported.vote for exported in store.exported_votes() if exported.vote.ballot_id in ledger.sent]
    count = Counter(vote.ballot_id for vote in votes)
    kept = {vote.ballot_id: vote.choice for vote in votes}
    return Reckoning(
        kept=len(votes),
        lost=sum(kept.get(ballot) != choice for ballot, choice in ledger.acknowledged.items()),
        unasked=sum(ledger.sent[ballot] != choice for ballot, choice in kept.items()),
        double=sum(number > 1 for number in count.values()),
        problems=tuple(map(str, store.verify())),
    )


def add_options(parser: argparse.ArgumentParser, prompts: int) -> None:
    """What every benchmark with voters can be told about its study."""
    parser.add_argument("--prompts", type=int, default=prompts, help="of the study: three pairs each")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--database-url", help="an empty database; default: SQLite in a temporary folder")
    where.add_argument("--postgres", action="store_true", help="a temporary PostgreSQL server, with fsync")


@dataclass(frozen=True)
class Place:
    """A database with a filled study, a folder for its pictures, and the server where it is a temporary one."""

    url: str
    folder: Path
    server: PostgresCluster | None


@contextmanager
def study_to_vote_on(options: argparse.Namespace) -> Iterator[Place]:
    """What `options` (see `add_options`) ask for; the temporary parts are gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PostgresCluster({})) if options.postgres else None
        url = server.new_database() if server else options.database_url or f"sqlite:///{folder / 'npo.db'}"
        with Store(url, folder) as store:
            fill_study(store, options.prompts, ballots_per_participant=2 * options.prompts)
        yield Place(url, folder, server)


def tell(facts: dict[str, Any], url: str, reckoning: Reckoning) -> int:
    """Prints them as JSON; the exit status, 1 where the database is not as the voters were told."""
    print(json.dumps({"database": url.partition(":")[0], **facts, **asdict(reckoning)}, indent=1))
    return 1 if reckoning.lost or reckoning.double or reckoning.unasked or reckoning.problems else 0


def quantiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the worst, in milliseconds."""
    if not seconds:
        return {}
    shares = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    return {name: round(1000 * float(np.percentile(seconds, share)), 1) for name, share in shares.items()}
