"""Pairs per second of our trainer beside a plain one that encodes pictures and prompts in every step.

    python -m benchmarks.training --shape sd15 --json out/training.json      # a GPU; 2 to 4 minutes
    python -m benchmarks.training --shape emoji --device cpu                 # two cores; 2 minutes

The plain trainer does what published Diffusion-DPO / NPO scripts do: half-precision frozen base, gradient
checkpointing, VAE and text encoder in every step, the reference by disabled adapters. It is spared their JPEG decoding.
Both see the same pictures, prompts, batch, LoRA (rank 8 on attention) and precision; rows differ in what ours leaves
out. Rates are medians over steps. The floor is 6 forward passes a pair (reference 2, policy 2, backward 2, for frozen
weights need no gradients), at the rate of the network's own forward pass without adapters, compiled where it can be.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from npo_core.catalog.families import get_family
from npo_core.console import hush_libraries
from npo_core.sampling.pipelines import load_pipeline
from train.engine.config import TrainConfig, fastest_precision
from train.engine.files import write_json
from train.engine.loop import train_adapter
from train.engine.task import StepMetrics
from train.network.models import ReferenceSwitch, fast_attention, trainable_lora
from train.objectives.losses import LOSSES, implicit_reward
from train.pairs.pairs import PreferencePair

WARM_UP = 3  # steps not counted
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}
PROMPTS = [f"a photograph of thing number {number}, at dusk" for number in range(16)]


def sd15_pipeline() -> StableDiffusionPipeline:
    """Stable Diffusion 1.5's shapes with random weights; its tokenizer has one token a character."""
    characters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{character}</w>" for character in characters)]
    tokenizer = CLIPTokenizer(vocab={token: row for row, token in enumerate(tokens)}, merges=[], model_max_length=77)
    unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8, block_out_channels=(320, 640, 1280, 1280)
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=2,
        sample_size=512,
    )
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
    )
    schedule = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=schedule,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class Plain:
    """The trainer that people start from, over pictures (N, 2, 3, H, W) in [-1, 1]."""

    def __init__(self, pipeline: StableDiffusionPipeline, config: TrainConfig, pictures: torch.Tensor) -> None:
        self.pipeline, self.config, self.pictures = pipeline, config, pictures
        self.device = torch.device(config.device or "cuda")
        self.schedule = DDIMScheduler.from_config(pipeline.scheduler.config)

    def pairs_per_s(self) -> float:
        """The median over the steps."""
        config, pipeline, dtype = self.config, self.pipeline, DTYPES[self.config.mixed_precision]
        half = dtype if self.device.type == "cuda" else torch.float32
        unet = pipeline.unet.to(self.device, half)
        pipeline.vae.to(self.device, half)
        pipeline.text_encoder.to(self.device, half)
        unet.enable_gradient_checkpointing()
        seconds = []
        with trainable_lora(unet, config.rank, config.rank, config.targets, config.seed) as weights:
            optimizer = torch.optim.AdamW(weights, lr=config.learning_rate)
            with fast_attention(self.device, config.mixed_precision):
                for step in range(config.max_train_steps):
                    started_s = time.perf_counter()
                    self._step(unet, optimizer, weights, step, dtype)
                    _synchronize(self.device)
                    seconds.append(time.perf_counter() - started_s)
        unet.disable_gradient_checkpointing()
        pipeline.to("cpu", torch.float32)
        return config.batch_size / statistics.median(seconds[WARM_UP:])

    def _step(self, unet: Any, optimizer: Any, weights: Any, step: int, dtype: torch.dtype) -> None:
        config, pipeline = self.config, self.pipeline
        chosen = torch.arange(step * config.batch_size, (step + 1) * config.batch_size) % len(self.pictures)
        pixels = self.pictures[chosen].transpose(0, 1).flatten(0, 1).to(self.device, pipeline.vae.dtype)
        prompts = [PROMPTS[number % len(PROMPTS)] for number in chosen.tolist()]
        with torch.no_grad():
            latents = pipeline.vae.encode(pixels).latent_dist.sample() * pipeline.vae.config.scaling_factor
            text = pipeline.encode_prompt(prompts, self.device, 1, False)[0].repeat(2, 1, 1)
        noise = torch.randn_like(latents[: config.batch_size]).repeat(2, 1, 1, 1)
        timesteps = torch.randint(0, 1000, (config.batch_size,), device=self.device).repeat(2)
        noisy = self.schedule.add_noise(latents, noise, timesteps)
        enabled = dtype != torch.float32
        with torch.autocast(self.device.type, dtype, enabled=enabled):
            policy = unet(noisy, timesteps, text).sample
            with ReferenceSwitch(unet).reference():
                reference = unet(noisy, timesteps, text).sample
        errors = [(each.float() - noise.float()).pow(2).flatten(1).mean(1) for each in (policy, reference)]
        preferred, rejected = implicit_reward(errors[0], errors[1], config.beta_dpo).chunk(2)
        LOSSES[config.loss](preferred, rejected).mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        float(preferred.detach().mean())  # published scripts log every step


def ours(pipeline: StableDiffusionPipeline, config: TrainConfig, pairs: list[PreferencePair]) -> tuple[float, int]:
    """(pairs per second, into how many parts the batch was split to fit the memory)."""
    while True:
        times: list[float] = []

        def note(metrics: StepMetrics, times: list[float] = times) -> None:
            times.append(time.perf_counter())

        torch.compiler.reset()
        try:
            train_adapter(config, pairs, pipeline, note)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            config = replace(config, gradient_accumulation_steps=2 * config.gradient_accumulation_steps)
            continue
        seconds = np.diff(times)[WARM_UP - 1 :]
        return config.batch_size / statistics.median(seconds.tolist()), config.gradient_accumulation_steps


def forward_s(pipeline: StableDiffusionPipeline, config: TrainConfig, shape: tuple[int, ...], compiled: bool) -> float:
    """Seconds of the base's forward pass for one picture, in a batch as large as the trainer's."""
    device, dtype = torch.device(config.device or "cuda"), DTYPES[config.mixed_precision]
    half = dtype if device.type == "cuda" else torch.float32
    unet = pipeline.unet.to(device, half, memory_format=torch.channels_last)
    count = 2 * config.batch_size
    inputs = torch.randn(count, *shape, device=device, dtype=half), torch.arange(count, device=device)
    text = torch.randn(count, 77, unet.config.cross_attention_dim, device=device, dtype=half)
    run: Callable[..., Any] = torch.compile(unet) if compiled else unet
    seconds = []
    with (
        torch.no_grad(),
        fast_attention(device, config.mixed_precision),
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
    ):
        for _ in range(WARM_UP + 5):
            started_s = time.perf_counter()
            run(*inputs, text)
            _synchronize(device)
            seconds.append(time.perf_counter() - started_s)
    pipeline.unet.to("cpu", torch.float32, memory_format=torch.contiguous_format)
    return statistics.median(seconds[WARM_UP:]) / count


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rows of the table."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = sd15_pipeline() if options.shape == "sd15" else load_pipeline(get_family("emoji"))
    size_px = options.size or (512 if options.shape == "sd15" else 128)
    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    shape = (pipeline.unet.config.in_channels, size_px // scale, size_px // scale)
    common = config_of(options, folder, device)
    compiles = device == "cuda" and not options.no_compile
    per_picture_s = forward_s(pipeline, common, shape, compiles)
    floor = 1 / (6 * per_picture_s)
    rows = rates(options, pipeline, common, *examples(options.pairs, shape, size_px), compiles)
    medians = {name: statistics.median(row["rates"]) for name, row in rows.items()}
    plain = medians["plain, checkpointing"]
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "shape": options.shape,
        "size_px": size_px,
        "batch": options.batch,
        "steps": options.steps,
        "precision": common.mixed_precision,
        "forward_ms_per_picture": round(1000 * per_picture_s, 3),
        "floor_pairs_per_s": round(floor, 2),
        "rows": [
            {
                "name": name,
                "pairs_per_s": round(rate, 2),
                "times_plain": round(rate / plain, 2),
                "share_of_floor": round(rate / floor, 2),
                "parts": rows[name]["parts"],
            }
            for name, rate in medians.items()
        ],
    }


def examples(count: int, shape: tuple[int, int, int], size_px: int) -> tuple[list[PreferencePair], Tensor]:
    """Pairs of latents (C, H, W) for our trainer, and as many pairs of pictures (count, 2, 3, size_px, size_px)."""
    random = np.random.default_rng(0)
    pairs = [
        PreferencePair(
            PROMPTS[number % len(PROMPTS)], *random.standard_normal((2, *shape)).astype(np.float16), f"pair {number}"
        )
        for number in range(count)
    ]
    pictures = random.uniform(-1, 1, (count, 2, 3, size_px, size_px)).astype(np.float32)
    return pairs, torch.from_numpy(pictures)


def config_of(options: argparse.Namespace, folder: Path, device: str) -> TrainConfig:
    """What all runs have in common."""
    return TrainConfig(
        family="emoji",
        output_dir=folder / "ours",
        max_train_steps=WARM_UP + options.steps,
        batch_size=options.batch,
        mixed_precision=fastest_precision(device),
        device=device,
        compile="off",
        checkpoint_every=10**6,
        log_every=10**6,
        progress=False,
        cache_dir=folder / "cache",
    )


def rates(
    options: argparse.Namespace,
    pipeline: Any,
    common: TrainConfig,
    pairs: list[PreferencePair],
    pictures: Tensor,
    compiles: bool,
) -> dict[str, dict[str, Any]]:
    """Trainer -> the pairs a second of each round, and in how many parts a batch was run."""
    folder = common.output_dir.parent
    rows: dict[str, dict[str, Any]] = {}

    def note(name: str, rate: float, parts: int = 1) -> None:
        rows.setdefault(name, {"rates": [], "parts": parts})["rates"].append(round(rate, 3))
        print(f"{name}: {rate:.2f} pairs/s", flush=True)

    for turn in range(options.rounds):
        where = replace(common, output_dir=folder / f"ours-{turn}")
        note("plain, checkpointing", Plain(pipeline, common, pictures).pairs_per_s())
        note("ours, checkpointing", *ours(pipeline, replace(where, gradient_checkpointing="on"), pairs))
        note("ours, no checkpointing", *ours(pipeline, replace(where, gradient_checkpointing="off"), pairs))
    best = replace(common, gradient_checkpointing="off", compile="on" if compiles else "off", share_reference=True)
    suffix = ", compiled" if compiles else ""
    shared = replace(best, share_reference=False, output_dir=folder / "compiled")
    if compiles:
        checkpointed = replace(shared, gradient_checkpointing="on", output_dir=folder / "checkpointed")
        note(f"ours, checkpointing{suffix}", *ours(pipeline, checkpointed, pairs))
        note(f"ours, no checkpointing{suffix}", *ours(pipeline, shared, pairs))
    filling = replace(best, compile="off", output_dir=folder / "first")
    ours(pipeline, filling, pairs)  # leaves the reference's errors for the run after it
    second = replace(best, output_dir=folder / "second")
    note(f"ours, no checkpointing{suffix}, reference shared", *ours(pipeline, second, pairs))
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    """The table for benchmarks/README.md."""
    lines = [
        f"{result['device']}, {result['shape']} shape at {result['size_px']} px, {result['batch']} pairs a step, "
        f"{result['precision']}, medians of {result['steps']} steps; floor {result['floor_pairs_per_s']} pairs/s "
        f"({result['forward_ms_per_picture']} ms a forward pass and picture).",
        "",
        "| trainer | pairs/s | times plain | share of the floor |",
        "|---|---|---|---|",
    ]
    for row in result["rows"]:
        split = f" (in {row['parts']} parts)" if row["parts"] > 1 else ""
        lines.append(
            f"| {row['name']}{split} | {row['pairs_per_s']} | {row['times_plain']} | {row['share_of_floor']:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=("sd15", "emoji"), default="sd15")
    parser.add_argument("--size", type=int, help="of the pictures in pixels (512, emoji 128)")
    parser.add_argument("--device", help="cpu, or the GPU if there is one")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="measured in each row")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("train.engine.run").setLevel(logging.INFO)
    hush_libraries()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(as_markdown(result))
    if options.json:
        write_json(options.json, result)
        print(json.dumps(result))


if __name__ == "__main__":
    main()
