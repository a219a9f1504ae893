"""How long somebody waits who starts the app: until the page answers, and until the first three pictures are there.

    python -m benchmarks.cold_start             # the app in a fresh process with an empty database; about half a minute

The first comparison is asked for as soon as the page answers, while the model is still being loaded. The split comes
from the app's own log: importing torch and diffusers, loading the weights, warming up, denoising, decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
PROMPT = "a red apple, 3d style"
SPLIT = {  # name -> what the log says
    "import torch, diffusers": r"Imported torch and diffusers in ([\d.]+) s",
    "load": r"loaded the weights in ([\d.]+) s",
    "warm-up": r"Warmed up in ([\d.]+) s",
    "denoise": r"Denoised \d+ samples in ([\d.]+) s",
    "decode": r"decoded in ([\d.]+) s",
}


def measure(wait_s: float) -> dict[str, float]:
    """Seconds by name; the process is ended afterwards. Raises RuntimeError when the app does not come up."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        environment = {
            **os.environ,
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": address.rpartition(":")[2],
            "NPO_DATABASE_URL": f"sqlite:///{folder}/npo.db",
            "NPO_DATA_DIR": folder,
        }
        started_s = time.perf_counter()
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            _wait_for(address, process, wait_s)
            found = {"page answers": time.perf_counter() - started_s}
            made = _generate(address, wait_s)
            found["first three pictures"] = time.perf_counter() - started_s
            assert len(made["panels"]) == 3
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        text = log.read()
    for name, pattern in SPLIT.items():
        match = re.search(pattern, text)
        if match:
            found[name] = float(match[1])
    return found


def _wait_for(address: str, process: subprocess.Popen[bytes], wait_s: float) -> None:
    deadline_s = time.perf_counter() + wait_s
    while time.perf_counter() < deadline_s and process.poll() is None:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError("the app does not serve")


def _generate(address: str, wait_s: float) -> dict[str, list[object]]:
    """The answer of the endpoint /generate, over plain HTTP."""
    with urlopen(f"{address}/gradio_api/info", timeout=30) as answer:
        parameters = json.load(answer)["named_endpoints"]["/generate"]["parameters"]
    given = {"prompt": PROMPT, "seed": 7}
    data = [given.get(each["parameter_name"], each["parameter_default"]) for each in parameters]
    body = json.dumps({"data": data}).encode()
    call = Request(f"{address}/gradio_api/call/generate", body, {"Content-Type": "application/json"})
    with urlopen(call, timeout=30) as answer:
        event = json.load(answer)["event_id"]
    with urlopen(f"{address}/gradio_api/call/generate/{event}", timeout=wait_s) as stream:
        lines = stream.read().decode().splitlines()
    if "event: complete" not in lines:
        raise RuntimeError(f"the app did not generate: {lines[-2:]}")
    return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_start", description=__doc__.splitlines()[0])
    parser.add_argument("--wait", type=float, default=300, help="seconds to wait at most (default: %(default)s)")
    for name, seconds in measure(parser.parse_args(arguments).wait).items():
        print(f"| {name} | {seconds:.1f} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
