"""Serves the app for tests: in this process, or in one of its own that can be killed.

python -m tests.ui.serving FOLDER PORT      # the tiny family in FOLDER/tiny, database and media in FOLDER
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from app import build_app, launch, serve, stop_on_signals
from service.operations import logs
from service.services import Services, open_services
from tests.tiny import tiny_family

ROOT = Path(__file__).parents[2]


@contextmanager
def serving(services: Services) -> Iterator[str]:
    """The app's address, served from a thread."""
    app = build_app(services)
    port = free_port()
    launch(app, services, server_name="127.0.0.1", server_port=port, quiet=True)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        app.close()


@contextmanager
def serving_apart(
    command: list[str], port: int, wait_s: float = 300, log: Path | None = None, **environment: str
) -> Iterator[subprocess.Popen]:
    """A server process; killed without a word at the end. `log`: where what it says is kept."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=log.open("ab") if log else None,
        stderr=subprocess.STDOUT if log else None,
        env={**os.environ, "GRADIO_SERVER_PORT": str(port), "GRADIO_SERVER_NAME": "127.0.0.1", **environment},
    )
    try:
        deadline = time.monotonic() + wait_s
        while not _answers(port):
            assert process.poll() is None, "the app ended before it served"
            assert time.monotonic() < deadline, "the app does not serve"
            time.sleep(0.5)
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except OSError:
        return False


def main() -> None:
    logs.configure()
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    services = open_services(tiny_family(folder), f"sqlite:///{folder / 'npo.db'}", folder)
    os.environ.update(GRADIO_SERVER_NAME="127.0.0.1", GRADIO_SERVER_PORT=str(port))
    serve(build_app(services), services, stop_on_signals())


if __name__ == "__main__":
    main()
