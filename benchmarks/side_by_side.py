"""What a comparison of three variants costs: the ways a user could run it instead, and ours, in one run.

    python -m benchmarks.side_by_side --case emoji                        # two CPU cores: about 3 minutes
    python -m benchmarks.side_by_side --case sd15                         # a GPU: about 3 minutes
    python -m benchmarks.side_by_side --case sdxl animatediff             # a GPU: about 5 minutes
    python -m benchmarks.side_by_side --case sd15 --out side_by_side.json # also as JSON; what is in it is not run again

Every way makes the same three pictures (base, aligned, aligned_npo with alpha = beta = 1) from the same weights, noise
and text embeddings:

(a) published     two batch-1 calls for each variant, one after the other, with a UNet for each branch
(b) stock         the stock pipeline, batch-2 guidance, for each variant, with merged weights
(c) PEFT          one batch of six, adapters mixed by PEFT
(d) ours          RoutedUNet, each routing; on a GPU also recorded as a CUDA graph, and compiled

ms per step: the UNet calls of one denoising step for all three variants, median. For (b) each variant is one batch-2
call with ONE merged UNet. That is its least: its picture of aligned_npo needs two UNets, and is made with two.
ms per three pictures: the pipelines' own calls and the VAE, without the text encoder; GPU ways after warming up.
GB: the most that was taken from the device while stepping (on a CPU the process's resident set).
difference: of the final latents to those of (b) in float32, as a share of their range.
Floor: floating point operations of six UNet rows, counted, at the rate of a large matrix product measured here.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import calls
from benchmarks.calls import (
    Setting,
    decode,
    forget_peak,
    latents_of,
    median_ms,
    peak_gb,
    pipeline_around,
    synchronise,
    unet_call,
)
from benchmarks.shapes import CASES, Case
from benchmarks.ways import Way, adapters_of, stock, ways_of
from npo_core.console import hush_libraries
from npo_core.weights import FullWeights


@dataclass
class Result:
    """One line of the table; None where a number makes no sense."""

    way: str
    step_ms: float | None = None
    pictures_ms: float | None = None
    memory_gb: float | None = None
    difference: dict[str, float] = field(default_factory=dict)  # dtype -> share of the range
    note: str = ""


def floor_ms(setting: Setting, case: Case) -> tuple[float, float, float]:
    """(floating point operations of one row in T, rate of a large matrix product in T/s, ms of six rows at it)."""
    with torch.device("meta"):
        unet = case.unet().to("meta")
    meta = Setting(case, torch.device("meta"), torch.float32)
    with FlopCounterMode(display=False) as counter:
        unet_call(meta, unet, 1)()
    row = counter.get_total_flops() / 2  # of a guided sample's two rows
    size = 8192 if setting.device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=setting.device, dtype=setting.dtype) for _ in range(2))
    rate = 2 * size**3 / median_ms(lambda: a @ b, setting.device, 10) * 1e3
    return row / 1e12, rate / 1e12, 1e3 * 6 * row / rate


@torch.no_grad()
def final_latents(setting: Setting, way: Way) -> Tensor:
    """(3, ...) on the CPU in float32, after a few steps."""
    parts = []
    eta, delta = adapters_of(setting.case, setting.unet(), way.full)
    for stage in way.stages(setting, eta, delta):
        pipeline = pipeline_around(setting, stage.pictures)
        parts.append(latents_of(setting, pipeline, stage.samples, setting.case.checked_steps).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def timed(setting: Setting, way: Way, repeats: int) -> Result:
    step_ms = pictures_ms = memory_gb = 0.0
    device = setting.device
    eta, delta = adapters_of(setting.case, setting.unet(), way.full)
    if isinstance(eta, FullWeights):
        eta = eta.to(torch.device("cpu"))
    vae = setting.case.vae().to(setting.dtype)
    for stage in way.stages(setting, eta, delta):
        call = unet_call(setting, stage.step, stage.samples)
        call()  # the first one records
        forget_peak(device)
        step_ms += median_ms(call, device, repeats)
        memory_gb = max(memory_gb, peak_gb(device) or 0)
        pipeline = pipeline_around(setting, stage.pictures, vae.to(device))
        decode(pipeline, latents_of(setting, pipeline, stage.samples, 1))
        synchronise(device)
        started = calls.clock()
        decode(pipeline, latents_of(setting, pipeline, stage.samples, setting.case.steps))
        synchronise(device)
        pictures_ms += 1e3 * (calls.clock() - started)
        vae.to("cpu")
    return Result(way.name, step_ms, pictures_ms, memory_gb)


# Reports


class Report:
    """The results so far, kept in a JSON file after every one of them where a path is given."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.cases: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            self.cases = json.loads(path.read_text(encoding="utf-8"))

    def case(self, setting: Setting) -> dict[str, Any]:
        key = f"{setting.case.name} on {device_name(setting.device)}"
        return self.cases.setdefault(key, {"label": setting.case.label, "floor": None, "results": {}})

    def save(self) -> None:
        if self.path is not None:
            self.path.write_text(json.dumps(self.cases, indent=1), encoding="utf-8")


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{model[0].partition(': ')[2] if model else platform.processor()}, {torch.get_num_threads()} threads"


def table(case: dict[str, Any]) -> str:
    """One case as Markdown."""
    results = {way: Result(**each) for way, each in case["results"].items()}
    ways = [[each.step_ms for way, each in results.items() if way.startswith(letter)][:1] for letter in ("(a)", "(b)")]
    lines = [
        "| way | ms per step | times (a) | times (b) | ms, three pictures | GB | difference to (b) in float32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, result in results.items():
        faster = [f"{base[0] / result.step_ms:.2f}" if base and base[0] and result.step_ms else "" for base in ways]
        differences = ", ".join(f"{dtype} {value:.1e}" for dtype, value in result.difference.items())
        numbers = (result.step_ms, result.pictures_ms)
        times = [f"{number:.1f}" if number else "" for number in numbers]
        memory = f"{result.memory_gb:.2f}" if result.memory_gb else ""
        cells = [way, times[0], *faster, times[1], memory, differences or result.note]
        lines.append(f"| {' | '.join(cells)} |")
    row, rate, floor = case["floor"]
    lines.append(f"\nFloor: 6 x {row:.3g} T at {rate:.2f} T/s = {floor:.1f} ms per step.")
    return "\n".join(lines)


def run_case(
    case: Case, device: torch.device, report: Report, compiled: bool, repeats: int, only: str
) -> dict[str, Any]:
    fast = torch.float16 if device.type == "cuda" else torch.float32
    kept = report.case(Setting(case, device, fast))
    if kept["floor"] is None:
        kept["floor"] = floor_ms(Setting(case, device, fast), case)
    references: dict[bool, Tensor] = {}
    for way in ways_of(device, compiled):
        if way.name in kept["results"] or only not in way.name:
            continue
        if way.full and case.family:
            continue  # its eta is a LoRA
        started = time.perf_counter()
        try:
            result = timed(Setting(case, device, fast, way.channels_last), way, repeats)
            if way.checked:
                result.difference = differences(case, device, way, fast, references)
        except torch.OutOfMemoryError:
            result = Result(way.name, note="out of memory")
        kept["results"][way.name] = vars(result)
        report.save()
        forget_peak(device)
        print(f"{case.name}: {way.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return kept


def differences(
    case: Case, device: torch.device, way: Way, fast: torch.dtype, references: dict[bool, Tensor]
) -> dict[str, float]:
    """By dtype: the largest difference of the final latents to those of (b) in float32, as a share of their range."""
    if way.full not in references:
        stock_way = Way("", stock, full=way.full)
        references[way.full] = final_latents(Setting(case, device, torch.float32), stock_way)
    reference = references[way.full]
    found = {}
    for dtype in dict.fromkeys((torch.float32, fast)):
        latents = final_latents(Setting(case, device, dtype, way.channels_last), way)
        found[str(dtype).removeprefix("torch.")] = ((latents - reference).abs().max() / reference.abs().max()).item()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=["emoji"], help="what to measure")
    parser.add_argument("--compile", nargs="*", choices=list(CASES), default=["sd15"], help="cases to compile on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps; the median is taken")
    parser.add_argument("--only", default="", help="the ways whose name has this in it")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="on a CPU: one thread, and the time that it computed, not that it waited for other programs",
    )
    parser.add_argument("--out", type=Path, help="JSON file that the results are kept in")
    options = parser.parse_args(arguments)
    hush_libraries()
    torch.backends.cudnn.allow_tf32 = False  # float32 is to mean float32
    if options.cpu_time:
        calls.clock = time.process_time
        torch.set_num_threads(1)
    report = Report(options.out)
    device = torch.device(options.device)
    for name in options.case:
        kept = run_case(CASES[name](), device, report, name in options.compile, options.repeats, options.only)
        print(f"\n{kept['label']}, {device_name(device)}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n")
        print(table(kept), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
