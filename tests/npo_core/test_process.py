"""A process gets on with others: as many threads as cores, which sleep while they wait; its end with its launcher."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from npo_core.process import settle_threads, usable_cores

ROOT = Path(__file__).parents[2]
V2 = "0::/user.slice/job"


def machine(root: Path, siblings: dict[int, str], cgroup: str = "0::/", **files: str) -> Path:
    """A folder that looks like /proc and /sys of a machine; files: path with / as __ -> content."""
    for processor, cores in siblings.items():
        folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(cores + "\n")
    for name, content in {"proc/self/cgroup": cgroup, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    return root


HYPERTHREADS = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
PLAIN = {number: str(number) for number in range(8)}


@pytest.mark.parametrize(
    ("siblings", "bound", "cgroup", "files", "expected"),
    [
        (PLAIN, set(PLAIN), "0::/", {}, 8),
        (HYPERTHREADS, {0, 1, 2, 3}, "0::/", {}, 2),
        (HYPERTHREADS, {0, 2}, "0::/", {}, 1),
        (PLAIN, {0, 1, 2}, "0::/", {}, 3),
        (PLAIN, set(PLAIN), "0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (PLAIN, set(PLAIN), "0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        (PLAIN, set(PLAIN), "0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        (PLAIN, set(PLAIN), V2, {"sys/fs/cgroup/user.slice/cpu.max": "300000 100000"}, 3),
        (
            PLAIN,
            set(PLAIN),
            "4:memory:/box\n3:cpu,cpuacct:/box",
            {
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ({}, {0, 1}, "", {}, 2),
    ],
)
def test_cores_are_those_that_may_be_used_at_once(
    siblings: dict[int, str], bound: set[int], cgroup: str, files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert usable_cores(machine(tmp_path, siblings, cgroup, **files), bound) == expected


def test_what_the_user_has_set_stays() -> None:
    environment = {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}
    settle_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "ACTIVE"}


@pytest.mark.skipif(sys.platform != "linux", reason="only there torch takes these settings")
def test_a_command_settles_them_before_torch_is_loaded() -> None:
    script = """
import os, sys
from npo_core.console import exit_status
def command():
    assert "torch" not in sys.modules
    import torch
    print(os.environ["OMP_WAIT_POLICY"], torch.get_num_threads())
sys.exit(exit_status(command))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    assert said.stdout.split() == ["PASSIVE", str(usable_cores(Path("/"), os.sched_getaffinity(0)))]


WORKER = """
import os, sys, time
from npo_core.console import exit_status
said = f"worker {os.getpid()}\\n".encode()  # in one piece: two of them write here
sys.exit(exit_status(lambda: (os.write(1, said), time.sleep(600))))
"""


def runs(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of one until somebody asks for its status."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process is told of its parent's end")
def test_who_kills_a_launcher_with_its_group_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    launcher = (
        f"{sys.executable} -m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 "
        f"--mixed_precision no --main_process_port 0 {script}"
    )
    process = subprocess.Popen(
        launcher.split(),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers: list[int] = []
    while len(workers) < 2:
        line = process.stdout.readline()
        assert line, "the launcher ended"
        workers += map(int, re.findall(r"worker (\d+)", line))
    assert all(map(runs, workers))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, "a worker goes on without its launcher"
        time.sleep(0.05)
