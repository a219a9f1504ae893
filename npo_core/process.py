"""How a process gets on with others: how many threads compute, how they wait, and that it ends with who launched it.

Threads have to be settled before torch is loaded, which asks once. By default every thread of OpenMP spins until the
slowest is ready. Alone on its cores that is a little quicker; beside one other busy program a picture takes many times
as long (benchmarks/README.md, "In company").
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def settle() -> None:
    """What every command does first."""
    settle_threads()
    end_with_launcher()


def end_with_launcher() -> None:
    """Ends this process as soon as `accelerate launch` or torchrun, which started it as one of several, is gone.

    They give their workers sessions of their own, so that who kills the launcher, and its group, would leave the
    workers waiting for each other with the GPUs' memory.
    """
    if "LOCAL_RANK" not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # it went before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def settle_threads(environment: MutableMapping[str, str] = os.environ, root: Path = Path("/")) -> None:
    """Lets waiting threads sleep, and as many compute as there are cores; what the user has set stays.

    root: where /proc and /sys are.
    """
    if sys.platform == "linux":  # torch brings an OpenMP of its own elsewhere
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        environment.setdefault("OMP_NUM_THREADS", str(usable_cores(root, os.sched_getaffinity(0))))


def usable_cores(root: Path, processors: set[int]) -> int:
    """How many threads may compute at once on `processors`: one for each core, for two on the same core (hyperthreads)
    share its arithmetic units, and no more than the control groups' quotas allow."""
    cores = {_siblings(root, processor) for processor in processors}
    return max(1, min([len(cores), *map(int, _quotas(root))]))


def _siblings(root: Path, processor: int) -> str:
    """The processors on the same core; equal for all of them."""
    file = root / f"sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
    return _read(file) or str(processor)


def _quotas(root: Path) -> Iterator[float]:
    """Cores that each control group above this process may keep busy, where it is limited (cgroups 2 and 1)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, place = line.split(":", 2)
        mount = root / "sys/fs/cgroup" / controllers
        names = ("cpu.max",) if number == "0" else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        for group in (Path(place), *Path(place).parents):  # the last is the mount: all that a container sees
            words = " ".join(_read(mount / group.relative_to("/") / name) for name in names).split()
            if len(words) == 2 and words[0].isdigit():  # "max", or -1, is no limit
                yield int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
