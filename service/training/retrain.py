"""Training from the page: how much there is to learn from, a run in a process of its own, how it goes, promotion."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from collection.store import Store
from collection.types import AdapterRecord
from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, Role
from service.errors import InputError
from service.training.admin import AdminGate
from service.training.new_picks import count_new

COMMANDS: dict[Role, str] = {"negative": "train.npo", "aligned": "train.dpo"}
PROCESS_FILE_NAME, LOG_FILE_NAME = "process.json", "run.log"
VALIDATE_EVERY = 25
MOST_STEPS = 5000
LOG_LINES = 12

State = Literal["none", "running", "finished", "failed", "stopped"]


@dataclass(frozen=True)
class News:
    """What there is to learn from. new_picks: those that would change what the last finished training of this role, on
    pictures, learned from."""

    picks: int
    new_picks: int
    in_use: str
    last_trained_at: datetime | None


@dataclass(frozen=True)
class RunView:
    """A run as it stands. rows: of its metrics.csv; grid: the newest validation pictures (PNG); log: its last lines."""

    state: State
    folder: Path | None = None
    role: Role = "negative"
    step: int = 0
    total_steps: int = 0
    rows: tuple[dict[str, float], ...] = ()
    grid: bytes | None = None
    log: str = ""
    adapter: AdapterRecord | None = None


class RetrainService:
    """One family's trainings. Every method but `view` of a stranger asks `gate` first. Survives a restart of the app:
    what is known of a run lies in its folder."""

    def __init__(self, store: Store, family: str, data_dir: Path, gate: AdminGate) -> None:
        self._store, self.family, self.gate = store, family, gate
        self._data_dir = data_dir
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def news(self, token: str | None, role: Role) -> News:
        """How many picks there are and how many came since the last training of `role`."""
        self.gate.require(token)
        votes = self._store.preference_pairs(self.family).pairs
        runs = self._store.training_runs(self.family, role)
        finished = (run for run in runs if run.status == "finished" and run.config.get("modality", "image") == "image")
        last = next(finished, None)
        known = set(last.vote_ids) if last else set()
        promoted = self._store.promoted(self.family, role)
        name = promoted[0].name if promoted else "the one that ships with the model"
        return News(len(votes), count_new(votes, known), name, last.created_at if last else None)

    def start(self, token: str | None, role: Role, steps: int | None = None) -> RunView:
        """Begins a training in a process of its own, at low priority; raises InputError while another one runs."""
        self.gate.require(token)
        if role not in COMMANDS:
            raise InputError(f"Unknown role {role!r}; choose from {', '.join(COMMANDS)}.")
        if steps is not None and not 1 <= steps <= MOST_STEPS:
            raise InputError(f"The number of steps is {steps}; give 1 to {MOST_STEPS}, or none.")
        with self._lock:
            if self._view().state == "running":
                raise InputError("A training is running; wait for its end or stop it.")
            folder = self._runs() / f"page-{datetime.now():%Y%m%d-%H%M%S-%f}"
            folder.mkdir(parents=True)
            self._process = self._launch(folder, role, steps)
        return self.view(token)

    def stop(self, token: str | None) -> RunView:
        """Ends the running training; its checkpoint stays."""
        self.gate.require(token)
        with self._lock:
            view = self._view()
            if view.state != "running" or view.folder is None:
                raise InputError("No training is running.")
            known = _read_json(view.folder / PROCESS_FILE_NAME)
            with suppress(ProcessLookupError):
                os.killpg(int(known["pid"]), signal.SIGTERM)
            if self._process is not None:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(10)
            (view.folder / PROCESS_FILE_NAME).write_text(json.dumps({**known, "stopped": True}), encoding="utf-8")
            return self._view()

    def view(self, token: str | None) -> RunView:
        """The latest run that was started from the page."""
        self.gate.require(token)
        with self._lock:
            return self._view()

    def promote(self, token: str | None, adapter_id: str) -> AdapterRecord:
        """Puts an adapter to use: the app's next picture is made with it."""
        self.gate.require(token)
        return self._store.promote(adapter_id)

    def roll_back(self, token: str | None, role: Role) -> str:
        """Takes the last promotion back; returns the name of what is in use then."""
        self.gate.require(token)
        adapter = self._store.roll_back(self.family, role)
        return adapter.name if adapter else "the one that ships with the model"

    def _runs(self) -> Path:
        return self._data_dir / "adapters" / self.family

    def _launch(self, folder: Path, role: Role, steps: int | None) -> subprocess.Popen[bytes]:
        """The same command that a person would type; the database's address goes by the environment, not by `ps`."""
        command = [sys.executable, "-u", "-m", COMMANDS[role], "--from-db", "--no-promote"]
        command += ["--family", self.family, "--data-dir", str(self._data_dir), "--output-dir", str(folder)]
        command += ["--validate-every", str(VALIDATE_EVERY)]
        if steps is not None:
            command += ["--max-train-steps", str(steps)]
        nice = shutil.which("nice")
        environment = {
            **os.environ,
            "NPO_DATABASE_URL": self._store.url.render_as_string(hide_password=False),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))  # the rest is the server's
        with (folder / LOG_FILE_NAME).open("wb") as log:
            process = subprocess.Popen(
                [nice, "-n", "10", *command] if nice else command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a restart of the app does not end it
            )
        content = {"pid": process.pid, "role": role, "command": command[2:]}
        (folder / PROCESS_FILE_NAME).write_text(json.dumps(content), encoding="utf-8")
        return process

    def _view(self) -> RunView:
        folders = sorted(file.parent for file in self._runs().glob(f"page-*/{PROCESS_FILE_NAME}"))
        if not folders:
            return RunView("none")
        folder = folders[-1]
        known = _read_json(folder / PROCESS_FILE_NAME)
        rows = _read_rows(folder / "metrics.csv")
        grids = sorted((folder / "validation").glob("step_*.png"))
        path = folder / ADAPTER_FILE_NAME
        role: Role = "aligned" if known.get("role") == "aligned" else "negative"
        adapter = next(
            (each for each in self._store.adapters(self.family, role) if Path(each.path) == path.resolve()), None
        )
        return RunView(
            state=self._state(known, adapter),
            folder=folder,
            role=role,
            step=int(rows[-1]["step"]) if rows else 0,
            total_steps=int(_read_json(folder / "config.json").get("max_train_steps", 0)),
            rows=rows,
            grid=grids[-1].read_bytes() if grids else None,
            log=_last_lines(folder / LOG_FILE_NAME),
            adapter=adapter,
        )

    def _state(self, known: dict[str, Any], adapter: AdapterRecord | None) -> State:
        if known.get("stopped"):
            return "stopped"
        if self._is_alive(int(known["pid"])):
            return "running"
        return "finished" if adapter else "failed"

    def _is_alive(self, pid: int) -> bool:
        if self._process is not None and self._process.pid == pid:
            return self._process.poll() is None
        try:  # started before the app was restarted
            return b"train." in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False


def _read_json(file: Path) -> dict[str, Any]:
    """{} while it is not there yet."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_rows(file: Path) -> tuple[dict[str, float], ...]:
    """The rows of metrics.csv, without the cells that are empty; none while it is not there yet."""
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            return tuple({name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(opened))
    except (OSError, ValueError):
        return ()


def _last_lines(file: Path) -> str:
    """What a terminal would show: of a progress bar only its last state, of the rest the last LOG_LINES lines."""
    try:
        text = file.read_bytes()[-20_000:].decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join([line for line in lines if line][-LOG_LINES:])
