"""What a command or the app imports before it knows what to do: names are told, and pages served, without a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SLOW = ("torch", "diffusers", "transformers", "accelerate", "peft", "datasets", "gradio", "matplotlib", "scipy", "av")
COMMANDS = (
    "npo_core.generate",
    "npo_core.weights",
    "collection",
    "service.keep_running",
    "service.pregenerate",
    "service.versus",
    "train.dpo",
    "train.evaluate",
    "train.npo",
    "train.self_npo",
)
HELP = """
import contextlib, runpy, sys
module, *slow = sys.argv[1:]
sys.argv = [module, "--help"]
with contextlib.suppress(SystemExit):
    runpy.run_module(module, run_name="__main__", alter_sys=True)
print("LOADED", *(name for name in slow if name in sys.modules))
"""


def loaded(script: str, *arguments: str) -> set[str]:
    """Which of the slow libraries are loaded at the end of `script`, which says so in its last line."""
    command = [sys.executable, "-c", script, *arguments]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    word, *names = said.splitlines()[-1].split()
    assert word == "LOADED"
    return set(names)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_waits_for_nothing_that_takes_seconds(module: str) -> None:
    assert loaded(HELP, module, *SLOW) == set()


def test_the_app_can_be_imported_without_a_model() -> None:
    script = "import sys, app; print('LOADED', *(name for name in sys.argv[1:] if name in sys.modules))"
    assert loaded(script, *SLOW) == {"gradio"}
