from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

import app
from npo_core.catalog.families import FAMILIES
from npo_core.catalog.hub import needs
from npo_core.catalog.references import split

ROOT = Path(__file__).parents[1]


def test_the_settings_come_from_the_environment_and_have_defaults() -> None:
    assert app.read_settings({}) == app.Settings("sqlite:///data/npo.db", Path("data"), "emoji")
    given = {"NPO_DATABASE_URL": "sqlite:///x.db", "NPO_DATA_DIR": "elsewhere", "NPO_FAMILY": "sdxl"}
    assert app.read_settings(given) == app.Settings("sqlite:///x.db", Path("elsewhere"), "sdxl")
    assert app.read_settings({"NPO_FAMILY": ""}).family == "emoji"
    assert app.read_settings({"NPO_FAMILIES": "mine.toml"}).families_file == Path("mine.toml")
    assert app.read_settings({}).safety
    assert not app.read_settings({"NPO_SAFETY_CHECKER": "off"}).safety
    space = app.read_settings({"SPACE_ID": "someone/lab", "NPO_HUB_DATASET": "someone/votes"})
    assert (space.on_space, space.hub_dataset) == (True, "someone/votes")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NPO_FAMILY", "nonsense", "error: Unknown family 'nonsense'; choose from"),
        ("NPO_HUB_DATASET", "not a name", "error: The data set 'not a name' cannot be used"),
        ("NPO_FAMILIES", "{tmp}/none.toml", "error: The families file"),
        ("NPO_DATABASE_URL", "sqlite:///{tmp}/file/npo.db", "error: The"),
        ("NPO_DATABASE_URL", "sqlite:///{tmp}/damaged.db", "error: The database"),
        ("NPO_DATABASE_URL", "nonsense", "error: 'nonsense' is not a database URL"),
        ("NPO_DATA_DIR", "{tmp}/file", "error: The data folder"),
        ("NPO_MAX_WAITING", "many", "error: The setting NPO_MAX_WAITING is 'many'; give a whole number"),
    ],
)
def test_a_wrong_setting_ends_the_app_with_one_sentence(
    name: str,
    value: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "damaged.db").write_bytes(b"not a database" * 100)
    monkeypatch.setenv("NPO_DATABASE_URL", f"sqlite:///{tmp_path}/npo.db")
    monkeypatch.setenv("NPO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv(name, value.format(tmp=tmp_path))
    assert app.main() == 2
    message = capsys.readouterr().err
    assert message.startswith(words)
    assert message.count("\n") == 1


def test_the_command_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, "NPO_FAMILY": "nonsense", "NPO_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown family")
    assert "Traceback" not in done.stderr


def test_the_front_matter_is_what_a_space_needs() -> None:
    told = metadata_load(ROOT / "README.md")
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    assert told["sdk"] == "gradio"
    assert told["sdk_version"] == pins["gradio"]
    assert (ROOT / told["app_file"]).is_file()
    assert told["python_version"] == "3.11"
    assert told["suggested_hardware"] == "cpu-basic", "the emoji family needs no more"
    assert told["hf_oauth"] is True
    needed = {split(need.reference)[0] for each in FAMILIES.values() for need in needs(each, "video")}
    assert set(told["models"]) == {repository for repository in needed if not repository.startswith("/")}
    assert len(told["short_description"]) <= 60
