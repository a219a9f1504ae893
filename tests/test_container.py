"""The container files. No container engine is needed: they are parsed, and the steps' commands run in a fresh venv."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from app import read_settings
from collection.database.engine import check_url
from tests.ui.serving import free_port

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text) of the Dockerfile, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def values(word: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == word]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in values("ENV") for pair in shlex.split(rest))


def health_command() -> list[str]:
    (check,) = values("HEALTHCHECK")
    return json.loads(check.partition("CMD")[2])


def test_the_image_is_slim_runs_as_a_user_and_is_for_a_cpu_unless_told_otherwise() -> None:
    words = [word for word, _ in instructions()]
    assert values("FROM") == ["python:3.11-slim"]
    assert values("ARG") == ["TORCH=cpu"]
    assert values("USER") == ["user"]
    assert words.index("USER") > max(number for number, word in enumerate(words) if word in ("RUN", "COPY"))
    assert values("VOLUME") == ["/app/data"]
    assert values("CMD") == ['["python", "app.py"]']
    assert values("EXPOSE") == [environment()["GRADIO_SERVER_PORT"]]
    assert any("--torch-backend=${TORCH}" in step for step in values("RUN"))
    assert health_command()[:2] == ["python", "-c"]
    assert "'/healthz'" in health_command()[2]


def test_what_is_copied_exists_and_what_is_not_for_the_image_is_ignored() -> None:
    for rest in values("COPY"):
        *sources, _ = [part for part in rest.split() if not part.startswith("--")]
        assert all((ROOT / source).exists() for source in sources)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (".git", ".venv", "data", "tests"):
        assert name in ignored
    for needed in ("app.py", "requirements.txt", "npo_core", "collection", "service", "train", "ui", "LICENSE"):
        assert not any(fnmatch(needed, pattern) for pattern in ignored)


def test_the_compose_file_is_the_app_on_postgresql() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    filled = re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda m: {"POSTGRES_PASSWORD": "secret"}.get(m[1], m[2]), text)
    composed = yaml.safe_load(filled)
    app, database = composed["services"]["app"], composed["services"]["database"]
    settings = read_settings(app["environment"])
    assert settings.family == "emoji"
    assert settings.database_url == "postgresql://npo:secret@database/npo"
    check_url(settings.database_url)
    assert app["build"]["args"] == {"TORCH": "cpu"}
    assert app["restart"] == "unless-stopped"
    assert app["depends_on"]["database"]["condition"] == "service_healthy"
    assert database["healthcheck"]
    given = database["environment"]
    assert (given["POSTGRES_USER"], given["POSTGRES_PASSWORD"], given["POSTGRES_DB"]) == ("npo", "secret", "npo")
    used = {volume.split(":")[0] for service in (app, database) for volume in service["volumes"]}
    assert used == set(composed["volumes"])
    assert app["volumes"] == [f"data:{values('VOLUME')[0]}"]
    assert "${POSTGRES_PASSWORD:?" in text, "no password is built in"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The image's folder and environment, made by its own commands in a fresh venv instead of a container.

    Left out: what needs root (the user, the owner of a folder). torch comes from wherever pip finds the pinned version,
    as the build's choice of CPU or CUDA is the package manager's own.
    """
    place = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    inside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    inside |= environment() | {"PATH": f"{place / 'venv' / 'bin'}:{os.environ['PATH']}", "TORCH": "cpu"}
    inside |= {"HF_HOME": str(place / "huggingface"), "GRADIO_SERVER_PORT": str(free_port())}
    inside |= {f"UV_{name}": os.environ[f"PIP_{name}"] for name in ("FIND_LINKS",) if f"PIP_{name}" in os.environ}
    app = place / "app"
    app.mkdir()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for word, rest in instructions():
        if word == "COPY":
            names = ["requirements.txt"] if "requirements.txt" in rest else tracked.splitlines()
            for name in names:
                if not any(fnmatch(name.split("/")[0], pattern) for pattern in ignored):
                    (app / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, app / name)
        elif word == "RUN" and "useradd" not in rest:
            command = rest.replace("--torch-backend=${TORCH}", "").replace("&& chown user data", "")
            subprocess.run(command, shell=True, cwd=app, env=inside, check=True)
    return app, inside


@pytest.mark.slow
def test_the_steps_of_the_image_make_an_app_that_is_healthy(built: tuple[Path, dict[str, str]]) -> None:
    app, inside = built
    assert subprocess.run(health_command(), cwd=app, env=inside, capture_output=True, check=False).returncode == 1
    (command,) = values("CMD")
    process = subprocess.Popen(json.loads(command), cwd=app, env={**inside, "GRADIO_SERVER_NAME": "127.0.0.1"})
    try:
        deadline = time.monotonic() + 180
        while subprocess.run(health_command(), cwd=app, env=inside, capture_output=True, check=False).returncode:
            assert process.poll() is None, "the app ended"
            assert time.monotonic() < deadline, "the app is not healthy"
            time.sleep(1)
        assert (app / "data" / "npo.db").is_file()
    finally:
        process.kill()
        process.wait()
