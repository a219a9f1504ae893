"""A case on a device, how a pipeline calls its UNet there with the same noise for every way, and what a call costs."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import Case

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
