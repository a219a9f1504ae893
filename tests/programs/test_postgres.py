"""The tests' own PostgreSQL server leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

START_AND_WAIT = """
import time
from tests.programs.postgres import PostgresCluster
print(PostgresCluster().folder, flush=True)
time.sleep(60)
"""


@pytest.mark.needs("postgresql")
def test_a_server_whose_tests_were_killed_is_gone_with_its_data() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT], stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert (folder / "data" / "postmaster.pid").exists()
        process.kill()
    end = time.monotonic() + 60
    while folder.exists():
        assert time.monotonic() < end, f"{folder} is still there"
        time.sleep(0.1)
