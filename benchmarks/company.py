"""How long three pictures take on a CPU that is shared: alone, and beside one and two programs that never rest.

    python -m benchmarks.company               # about ten minutes on two cores
    python -m benchmarks.company --repeats 9 --steps 10

Every way of setting OpenMP up has a process with the loaded emoji family. They take turns, one comparison each, so that
what else happens on the machine meets all of them; given are medians, and how many times as long as alone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

from npo_core.process import settle_threads

NEIGHBOURS = (0, 1, 2)
OURS: dict[str, str] = {}
settle_threads(OURS)
WAYS: dict[str, Mapping[str, str]] = {
    "as torch has it": {},
    "ours": OURS,
    "waiting sleeps": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORKER = """
import sys, time
from npo_core.generator import GenerationRequest, Generator
generator = Generator("emoji")
request = GenerationRequest("a red apple, 3d style", seed=7, steps=int(sys.argv[1]))
generator.generate(request)
print("ready", flush=True)
for line in sys.stdin:
    started_s = time.perf_counter()
    generator.generate(request)
    print(time.perf_counter() - started_s, flush=True)
"""


class Worker:
    """A process with the loaded family and OpenMP set up in one way."""

    def __init__(self, settings: Mapping[str, str], steps: int) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(steps)],
            env={**environment, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def seconds(self) -> float:
        """How long one comparison takes."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        return float(self._read())

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that generates ended")
        return line

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Within this context as many other processes compute."""
    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for each in neighbours:
            each.kill()
            each.wait()


def measure(repeats: int, steps: int) -> dict[str, list[float]]:
    """Way -> the median seconds beside as many neighbours as NEIGHBOURS says."""
    with ExitStack() as stack:
        workers = {way: stack.enter_context(Worker(settings, steps)) for way, settings in WAYS.items()}
        medians: dict[str, list[float]] = {way: [] for way in WAYS}
        for count in NEIGHBOURS:
            with busy(count):
                rounds = [{way: worker.seconds() for way, worker in workers.items()} for _ in range(repeats)]
            for way in WAYS:
                medians[way].append(median(each[way] for each in rounds))
                print(f"{count} neighbours, {way}: {medians[way][-1]:.2f} s", file=sys.stderr, flush=True)
    return medians


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.company", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="comparisons of each way (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps (default: %(default)s)")
    options = parser.parse_args(arguments)
    print("| OpenMP | alone, s | beside one | beside two |\n|---|---|---|---|")
    for way, (alone_s, *beside) in measure(options.repeats, options.steps).items():
        shown = " | ".join(f"{seconds:.1f} s, {seconds / alone_s:.2f} times" for seconds in beside)
        print(f"| {way} {dict(WAYS[way]) or ''} | {alone_s:.1f} | {shown} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
