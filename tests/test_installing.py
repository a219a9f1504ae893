"""`pip install .` outside of the checkout: pictures with the emoji weights, the guider, and what the extras name."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line and not line.startswith("#")
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project as pip installs it; the libraries are those that are here."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", folder, ROOT],
        check=True,
    )
    return folder


def run_outside(installed: Path, folder: Path, *arguments: str) -> str:
    """What Python prints in `folder`, from where the checkout is not to be seen."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(installed), "PATH": "", "HOME": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def test_the_command_generates_with_the_weights_that_ship_and_the_guider_is_there(
    installed: Path, tmp_path: Path
) -> None:
    run_outside(installed, tmp_path, "-m", "npo_core.generate", "a red apple, 3d style", "--steps", "1", "--out", "out")
    assert {"base.png", "aligned.png", "aligned_npo.png", "side_by_side.png"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    told = run_outside(
        installed, tmp_path, "-c", "from npo_core import guidance; guidance.NPOGuidance; print(guidance.__file__)"
    )
    assert Path(told.strip()).is_relative_to(installed)


def test_everything_that_is_not_code_is_installed_too(installed: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    packages = ("npo_core/", "collection/", "service/", "train/", "ui/")
    wanted = {name for name in tracked.splitlines() if name.startswith(packages) and (ROOT / name).exists()}
    missing = {name for name in wanted if not (installed / name).exists()}
    assert not missing


def test_what_is_installed_is_what_make_pins() -> None:
    named = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
    asked = [Requirement(line) for line in named if not line.startswith(PROJECT["name"])]
    pins = {re.sub(r"\[.*\]", "", name): version for name, version in PINS.items()}
    assert {each.name for each in asked} == set(pins)
    assert [each for each in asked if pins[each.name] not in each.specifier] == []
