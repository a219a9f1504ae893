"""What the tests need beside Python: got where that is allowed, and said in one sentence where it cannot be had.

    python -m tests.programs.needs     # installs what is missing; `make test` runs it first

As root, or where sudo asks for no password, Debian's packages are installed; else Playwright brings a Chromium of its
own. A test that needs something says so by a mark, `@pytest.mark.needs("ffprobe")`, and is skipped without it. With
CI=true nothing may be missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.programs.postgres import find_binaries

# The tests start a PostgreSQL server of their own; Debian need not make and start one.
APT = """
set -e
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] ||
    echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
"""


@dataclass(frozen=True)
class Program:
    """Something that tests run. `find` gives where it is, or None; `package` is Debian's."""

    label: str
    package: str
    find: Callable[[], Path | None]

    @property
    def missing(self) -> str:
        """Why a test without it is skipped, and how to get it."""
        return f"{self.label} is not installed; `apt-get install {self.package}` brings it"


@cache
def find_chromium() -> Path | None:
    """A browser that starts: the system's, which plays H.264, before Playwright's own."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found and _starts(found):
            return Path(found)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return Path(own) if _starts(own) else None


def find_ffprobe() -> Path | None:
    found = shutil.which("ffprobe")
    return Path(found) if found else None


def _starts(program: str) -> bool:
    """Whether it finds the libraries of the system that it needs."""
    try:
        return subprocess.run([program, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


PROGRAMS = {
    "chromium": Program("Chromium", "chromium", find_chromium),
    "ffprobe": Program("ffprobe", "ffmpeg", find_ffprobe),
    "postgresql": Program("PostgreSQL", "postgresql", find_binaries),
}


def need(name: str) -> None:
    """Skips the running test where the program is not to be had; with CI=true the test fails."""
    program = PROGRAMS[name]
    if program.find() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program.missing}; with CI=true nothing is skipped.", pytrace=False)
        pytest.skip(program.missing)


def not_tested(reasons: Iterable[str]) -> str | None:
    """One sentence about the tests that were skipped for these reasons; None where no program was missing."""
    told = list(reasons)
    counts = {program: sum(program.missing in reason for reason in told) for program in PROGRAMS.values()}
    missing = {program: count for program, count in counts.items() if count}
    if not missing:
        return None
    what = ", ".join(f"{program.label} ({count} tests)" for program, count in missing.items())
    return f"Not tested for want of {what}: `apt-get install {_packages(missing)}`, then run the tests again."


def _packages(programs: Iterable[Program]) -> str:
    return " ".join(program.package for program in programs)


def _missing() -> list[Program]:
    find_chromium.cache_clear()
    return [program for program in PROGRAMS.values() if program.find() is None]


def _as_root() -> list[str] | None:
    """How to run a command as root without being asked; None where that is not allowed."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    allowed = shutil.which("sudo") and subprocess.run([*sudo, "true"], capture_output=True).returncode == 0
    return sudo if allowed else None


def install(programs: Collection[Program]) -> None:
    """Gets what can be got; what cannot is left missing."""
    root = _as_root()
    if root is not None and shutil.which("apt-get"):
        print(f"The tests need {_packages(programs)}; installing with apt-get.", flush=True)
        names = [program.package for program in programs]
        subprocess.run([*root, "sh", "-c", APT, "apt", *names], stdout=subprocess.DEVNULL)
    if PROGRAMS["chromium"] in _missing():
        print("The tests need a browser; Playwright brings one.", flush=True)
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], stdout=subprocess.DEVNULL)


def main() -> int:
    missing = _missing()
    if missing:
        install(missing)
        missing = _missing()
    for program in missing:
        print(f"{program.missing}.", file=sys.stderr)
    return 2 if missing and os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
