"""Without a browser or a server the tests that need one are skipped, the last line says so, and CI insists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import needs
from tests.programs.needs import PROGRAMS, not_tested

ROOT = Path(__file__).parents[2]
CHOSEN = "browsers_play or test_a_generation_remembers"


def run_bare(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The test of clips' bytes and one on both databases, where neither ffprobe nor PostgreSQL is to be found."""
    script = """
import sys, pytest
from tests.programs import needs, postgres
for name in ("ffprobe", "postgresql"):
    needs.PROGRAMS[name].__dict__["find"] = lambda: None
sys.exit(pytest.main(sys.argv[1:]))
"""
    tests = ["tests/npo_core/media/test_files.py", "tests/collection/votes/test_generations.py", "-k", CHOSEN]
    return subprocess.run(
        [sys.executable, "-c", script, "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'temp'}", *tests],
        cwd=ROOT,
        env={**os.environ, "CI": "", **environment},
        capture_output=True,
        text=True,
    )


def test_what_is_missing_is_skipped_and_the_last_line_says_how_to_get_it(tmp_path: Path) -> None:
    ended = run_bare(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert "passed" in ended.stdout
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("Not tested for want of ffprobe (1 tests), PostgreSQL (")
    assert last.endswith("`apt-get install ffmpeg postgresql`, then run the tests again.")


def test_with_ci_nothing_is_skipped(tmp_path: Path) -> None:
    ended = run_bare(tmp_path, CI="true")
    assert ended.returncode == 1
    assert "ffprobe is not installed" in ended.stdout
    assert "skipped" not in ended.stdout.splitlines()[-1]


def test_other_reasons_to_skip_are_not_in_the_sentence() -> None:
    assert not_tested(["CUDA graphs need a GPU"]) is None
    assert not_tested(["", f"('a.py', 3, 'Skipped: {PROGRAMS['chromium'].missing}')"]) == (
        "Not tested for want of Chromium (1 tests): `apt-get install chromium`, then run the tests again."
    )


@pytest.mark.parametrize("ci", ["true", ""])
def test_the_command_installs_what_is_missing_and_only_ci_insists(
    ci: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    gone = needs.Program("Something", "something", lambda: None)
    monkeypatch.setitem(PROGRAMS, "something", gone)
    monkeypatch.setattr(needs, "install", asked.append)
    monkeypatch.setenv("CI", ci)
    assert needs.main() == (2 if ci else 0)
    assert gone in asked[0]
    assert "Something is not installed; `apt-get install something` brings it." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ([], ["sh -c", "playwright install"]),
        (["sudo", "-n"], ["sudo -n sh -c", "playwright install"]),
        (None, ["playwright install"]),
    ],
)
def test_packages_are_installed_where_that_is_allowed_and_a_browser_is_to_be_had_without(
    root: list[str] | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is found afterwards, so that the second way is tried after the first."""
    commands: list[str] = []
    nowhere = needs.Program("Chromium", "chromium", lambda: None)
    monkeypatch.setitem(PROGRAMS, "chromium", nowhere)
    monkeypatch.setattr(needs, "_as_root", lambda: root)
    monkeypatch.setattr(needs.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(needs.subprocess, "run", lambda command, **settings: commands.append(" ".join(command)))
    needs.install([nowhere])
    assert len(commands) == len(expected)
    for command, part in zip(commands, expected, strict=True):
        assert part in command
    assert all(command.endswith("chromium") for command in commands)
