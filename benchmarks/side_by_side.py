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
import contextlib
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.shapes import CASES, Case, random_fine_tune, random_lora
from npo_core.catalog.families import get_family
from npo_core.console import hush_libraries
from npo_core.routing.batch import Recording
from npo_core.routing.execution import LOW_RANK, WEIGHT_SETS
from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.variants import DEFAULT_VARIANTS, Mix, get_variant
from npo_core.weights import AdapterWeights, FullWeights, LowRankLayer, LowRankWeights, fit, load_adapter

PAIRS = [get_variant(name).mixes(1.0, 1.0) for name in DEFAULT_VARIANTS]  # (conditional, unconditional)
GUIDANCE = 5.0
DECODED_AT_ONCE = 8
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}


@dataclass(frozen=True)
class Setting:
    """A case on a device in a dtype."""

    case: Case
    device: torch.device
    dtype: torch.dtype
    channels_last: bool = False

    def unet(self) -> Any:
        """The base UNet, anew."""
        with self.device:
            unet = self.case.unet().to(self.device, self.dtype)
        return unet.to(memory_format=torch.channels_last) if self.channels_last else unet

    def random(self, *shape: int, seed: int) -> Tensor:
        """The same numbers on every device and in every dtype."""
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(self.device, self.dtype)


@dataclass
class Result:
    """One line of the table; None where a number makes no sense."""

    way: str
    step_ms: float | None = None
    pictures_ms: float | None = None
    memory_gb: float | None = None
    difference: dict[str, float] = field(default_factory=dict)  # dtype -> share of the range
    note: str = ""


# The calls of a UNet and of a pipeline


def conditions(setting: Setting, samples: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(for the prompt, for the negative prompt): text embeddings (samples, 77, width), SDXL's pooled ones too."""
    sides = []
    for seed in (1, 2):
        side = {"embeds": setting.random(1, 77, setting.case.text_width, seed=seed).expand(samples, -1, -1)}
        if setting.case.pooled_width:
            side["pooled"] = setting.random(1, setting.case.pooled_width, seed=seed).expand(samples, -1)
        sides.append({name: tensor.contiguous() for name, tensor in side.items()})
    return sides[0], sides[1]


def unet_call(setting: Setting, unet: Any, samples: int) -> Callable[[], Tensor]:
    """A call of `unet` as a pipeline makes it for guided samples: rows are [unconditional x n, conditional x n]."""
    case = setting.case
    prompt, negative = conditions(setting, samples)
    both = {name: torch.cat([negative[name], prompt[name]]) for name in prompt}
    text = both["embeds"].repeat_interleave(case.frames or 1, dim=0)
    sample = setting.random(1, *case.latent_shape(unet), seed=0)
    sample = sample.expand(2 * samples, *sample.shape[1:]).contiguous()
    if setting.channels_last and sample.ndim == 4:
        sample = sample.contiguous(memory_format=torch.channels_last)
    timestep = torch.tensor(500, device=setting.device)
    extra: dict[str, Any] = {}
    if case.pooled_width:
        size_px = 8 * case.latent_px
        sizes = torch.tensor([[size_px, size_px, 0, 0, size_px, size_px]] * (2 * samples))
        extra["added_cond_kwargs"] = {"text_embeds": both["pooled"], "time_ids": sizes.to(text)}
    return lambda: unet(sample, timestep, encoder_hidden_states=text, return_dict=False, **extra)[0]


def pipeline_around(setting: Setting, unet: Any, vae: Any = None) -> Any:
    """The stock pipeline of the case without text encoders; `unet` may be anything that is called like one."""
    from diffusers import AnimateDiffPipeline, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline

    vae = vae if vae is not None else setting.case.vae().to(setting.device, setting.dtype)
    texts: dict[str, None] = dict.fromkeys(("text_encoder", "tokenizer"))
    parts: dict[str, Any] = {"vae": vae, "unet": unet, "scheduler": DDIMScheduler(**SCHEDULE), **texts}
    if setting.case.frames:
        pipeline: Any = AnimateDiffPipeline(**parts, motion_adapter=None)
    elif setting.case.pooled_width:
        more: dict[str, None] = dict.fromkeys(("text_encoder_2", "tokenizer_2"))
        pipeline = StableDiffusionXLPipeline(**parts, **more, add_watermarker=False)
    else:
        checks: dict[str, None] = dict.fromkeys(("safety_checker", "feature_extractor"))
        pipeline = StableDiffusionPipeline(**parts, **checks, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents_of(setting: Setting, pipeline: Any, samples: int, steps: int) -> Tensor:
    """The final latents (samples, ...) of the pipeline's own call, from one noise."""
    case = setting.case
    noise = setting.random(1, *case.latent_shape(pipeline.unet), seed=0)
    prompt, negative = conditions(setting, samples)
    arguments: dict[str, Any] = {"num_frames": case.frames} if case.frames else {}
    if case.pooled_width:
        arguments |= {"pooled_prompt_embeds": prompt["pooled"], "negative_pooled_prompt_embeds": negative["pooled"]}
    if case.frames is None:
        arguments |= {"height": noise.shape[-2] * pipeline.vae_scale_factor}
        arguments |= {"width": noise.shape[-1] * pipeline.vae_scale_factor}
    output = pipeline(
        prompt_embeds=prompt["embeds"],
        negative_prompt_embeds=negative["embeds"],
        latents=noise.repeat(samples, *[1] * (noise.ndim - 1)),
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        output_type="latent",
        **arguments,
    )
    return output.frames if case.frames else output.images


def decode(pipeline: Any, latents: Tensor) -> None:
    """Pixels of pictures or frames, a few at a time."""
    if latents.ndim == 5:
        latents = latents.transpose(1, 2).flatten(0, 1)  # (clips * F, C, H, W)
    for part in latents.split(DECODED_AT_ONCE):
        pipeline.vae.decode(part / pipeline.vae.config.scaling_factor).sample.cpu()


# Weights


def adapters_of(case: Case, unet: Any, full: bool) -> tuple[AdapterWeights, LowRankWeights]:
    """eta (a whole UNet where `full`) and delta."""
    if full:
        return random_fine_tune(unet, seed=1), random_lora(unet, case.rank, seed=2)
    if case.family is None:
        return random_lora(unet, case.rank, seed=1), random_lora(unet, case.rank, seed=2)
    family = get_family(case.family)
    assert family.aligned
    assert family.negative
    aligned, negative = (fit(load_adapter(path), unet, path) for path in (family.aligned, family.negative))
    return aligned, negative


def merge_(unet: Any, mix: Mix, eta: AdapterWeights, delta: AdapterWeights) -> Any:
    """`unet` with theta + aligned * eta + negative * delta in place of theta; the sums are taken in float32."""
    state = unet.state_dict()
    offsets: dict[str, Tensor] = {}
    for share, weights in ((mix.aligned, eta), (mix.negative, delta)):
        for name, offset in _offsets(weights, state, unet.device):
            if share:
                offsets[name] = offsets.get(name, 0) + share * offset
    for name, offset in offsets.items():
        state[name].copy_(state[name].float() + offset)
    return unet


def _offsets(weights: AdapterWeights, state: dict[str, Tensor], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    if isinstance(weights, FullWeights):
        for name, tensor in weights.tensors.items():
            yield name, tensor.to(device).float() - state[name].float()
        return
    for name, layer in weights.layers.items():
        product = layer.b.float().flatten(1) @ layer.a.float().flatten(1)
        yield f"{name}.weight", (layer.scale * product).view_as(state[f"{name}.weight"]).to(device)


class TwoUNets(nn.Module):
    """The published code's way: the unconditional half of the batch by one UNet, the conditional half by another."""

    def __init__(self, unconditional: Any, conditional: Any) -> None:
        super().__init__()
        self.unconditional, self.conditional = unconditional, conditional

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("conditional"), name)

    def forward(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        added = kwargs.pop("added_cond_kwargs", None) or {}
        halves = []
        for place, unet in enumerate((self.unconditional, self.conditional)):
            half = {"added_cond_kwargs": {name: each.chunk(2)[place] for name, each in added.items()}} if added else {}
            text = encoder_hidden_states.chunk(2)[place]
            halves.append(unet(sample.chunk(2)[place], timestep, text, **{**kwargs, "return_dict": False}, **half)[0])
        output = torch.cat(halves)
        return SimpleNamespace(sample=output) if kwargs.get("return_dict", True) else (output,)


class PeftUNet(nn.Module):
    """One batch of six with PEFT's mixed adapters; alpha*eta + beta*delta is an adapter of its own, ranks joined."""

    def __init__(self, unet: Any, eta: LowRankWeights, delta: LowRankWeights) -> None:
        super().__init__()
        self.unet = unet
        joined = {
            name: LowRankLayer(
                torch.cat([eta.layers[name].a, layer.a]),
                torch.cat([eta.layers[name].b * eta.layers[name].scale, layer.b * layer.scale], dim=1),
                1.0,
            )
            for name, layer in delta.layers.items()
        }
        for adapter, weights in (("aligned", eta), ("negative", LowRankWeights(joined))):
            add_peft_adapter(unet, adapter, weights)
        names = {Mix(0, 0): "__base__", Mix(1, 0): "aligned", Mix(1, 1): "negative"}
        self.names = [names[mix] for mix in guided_rows(PAIRS, GUIDANCE)]
        for module in unet.modules():
            if hasattr(module, "lora_A"):
                module.register_forward_pre_hook(self._name_rows, with_kwargs=True)

    def _name_rows(self, module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        repeats = len(args[0]) // len(self.names)
        return args, {**kwargs, "adapter_names": [name for name in self.names for _ in range(repeats)]}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("unet"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.unet(*args, **kwargs)


def add_peft_adapter(unet: Any, adapter: str, weights: LowRankWeights) -> None:
    from peft import LoraConfig

    ranks = {name: layer.rank for name, layer in weights.layers.items()}
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=list(ranks),
    )
    unet.add_adapter(config, adapter_name=adapter)
    for name, layer in weights.layers.items():
        module = unet.get_submodule(name)
        module.lora_A[adapter].weight.data.copy_(layer.a)
        module.lora_B[adapter].weight.data.copy_(layer.b * layer.scale)
        module.scaling[adapter] = 1.0
    unet.set_adapters(["aligned"])
    unet.requires_grad_(False)


# Measuring


clock = time.perf_counter  # or time.process_time, see --cpu-time


def median_ms(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    times = []
    for number in range(repeats + 2):
        synchronise(device)
        started = clock()
        call()
        synchronise(device)
        if number >= 2:
            times.append(clock() - started)
    return 1e3 * statistics.median(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: torch.device) -> None:
    """The next `peak_gb` counts from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_gb(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    status = Path("/proc/self/status")
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    return int(lines[0].split()[1]) * 1024 / 1e9 if lines else None


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


# The ways


@dataclass(frozen=True)
class Stage:
    """What is in memory at once. pictures: for the pipeline; step: for the timed calls of one denoising step."""

    pictures: Any
    step: Any
    samples: int


@dataclass(frozen=True)
class Way:
    """stages(setting, eta, delta) gives one stage after the other; together they make the three variants."""

    name: str
    stages: Callable[[Setting, AdapterWeights, LowRankWeights], Iterator[Stage]]
    full: bool = False  # eta is a whole UNet
    channels_last: bool = False
    checked: bool = True


def published(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
    for conditional, unconditional in PAIRS:
        unet = merge_(setting.unet(), conditional, eta, delta)
        other = unet if unconditional == conditional else merge_(setting.unet(), unconditional, eta, delta)
        two = TwoUNets(other, unet)
        yield Stage(two, two, 1)


def stock(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
    for stage in published(setting, eta, delta):
        two = stage.pictures
        one = two.conditional
        yield Stage(one if two.unconditional is one else two, one, 1)


def peft(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
    assert isinstance(eta, LowRankWeights)
    unet = PeftUNet(setting.unet(), eta, delta).to(setting.dtype)
    yield Stage(unet, unet, len(PAIRS))


def ours(recording: Recording | None = None) -> Callable[..., Iterator[Stage]]:
    def stages(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
        unet: Any = RoutedUNet(setting.unet(), WEIGHT_SETS if isinstance(eta, FullWeights) else LOW_RANK)
        unet.set_adapter("aligned", eta)
        unet.set_adapter("negative", delta)
        with unet.rows(guided_rows(PAIRS, GUIDANCE), recording):
            yield Stage(unet, unet, len(PAIRS))

    return stages


def ways_of(device: torch.device, compiled: bool) -> list[Way]:
    """Those that make sense on `device`, (b) first, for the others are compared with it."""
    ways = [
        Way("(b) stock, batch-2 guidance", stock),
        Way("(a) published, two batch-1 calls", published),
        Way("(c) PEFT mixed adapters", peft),
        Way("(d) low_rank, eager", ours()),
        Way("(b) stock, eta a whole UNet", stock, full=True),
        Way("(d) weight_sets, eager", ours(), full=True),
        Way("(d) low_rank, eager, channels_last", ours(), channels_last=True, checked=False),
    ]
    if device.type == "cuda":
        ways.insert(4, Way("(d) low_rank, CUDA graph", ours("cuda_graph")))
        ways.append(Way("(d) weight_sets, CUDA graph", ours("cuda_graph"), full=True))
        ways.append(Way("(d) low_rank, CUDA graph, channels_last", ours("cuda_graph"), channels_last=True))
        if compiled:
            ways.append(Way("(d) low_rank, compiled, CUDA graph", ours("compiled_cuda_graph")))
    return ways


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
        started = clock()
        decode(pipeline, latents_of(setting, pipeline, stage.samples, setting.case.steps))
        synchronise(device)
        pictures_ms += 1e3 * (clock() - started)
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
        globals()["clock"] = time.process_time
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
