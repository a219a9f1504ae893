"""The recipe's stages: what runs when, what a failure stops, and that a second call goes on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from train.emoji.recipe import Stage, run, stages


def test_a_stage_waits_for_what_it_needs_and_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    recipe = [
        Stage("last", ["this"], ["first"]),
        Stage("first", ["this"]),
        Stage("broken", ["no_such_module"]),
        Stage("stopped", ["this"], ["broken", "first"]),
    ]
    assert run(recipe, tmp_path, pause_s=0.01) == ["broken"]
    assert sorted(file.name for file in (tmp_path / "done").iterdir()) == ["first", "last"]
    assert "No module named no_such_module" in (tmp_path / "logs/broken.log").read_text()
    assert not (tmp_path / "logs/stopped.log").exists()
    first = (tmp_path / "done/first").stat().st_mtime_ns
    last = (tmp_path / "done/last").stat().st_mtime_ns
    assert first < last


def test_a_second_call_runs_only_what_was_not_done(tmp_path: Path) -> None:
    assert run([Stage("broken", ["no_such_module"]), Stage("done", ["this"])], tmp_path, pause_s=0.01) == ["broken"]
    before = (tmp_path / "logs/done.log").read_bytes()
    mended = [Stage("broken", ["this"]), Stage("done", ["this"]), Stage("after", ["this"], ["broken"])]
    assert run(mended, tmp_path, pause_s=0.01) == []
    assert (tmp_path / "logs/done.log").read_bytes() == before
    assert (tmp_path / "done/after").exists()


@pytest.mark.slow  # seven commands, each of which imports torch
def test_every_stage_needs_stages_that_exist_and_is_a_command_that_takes_its_flags() -> None:
    recipe = stages(Path("art.npz"), Path("jury.npz"), Path("work"), Path("out"))
    names = {stage.name for stage in recipe}
    helps: dict[tuple[str, ...], str] = {}
    for stage in recipe:
        assert names.issuperset(stage.needs), stage
        words = tuple(stage.command[: 2 if not stage.command[1].startswith("-") else 1])
        if words not in helps:
            shown = subprocess.run([sys.executable, "-m", *words, "--help"], capture_output=True, text=True, check=True)
            helps[words] = shown.stdout
        for flag in (word for word in stage.command if word.startswith("--")):
            assert re.search(rf"{flag}\b", helps[words]), f"{words} has no {flag}"
