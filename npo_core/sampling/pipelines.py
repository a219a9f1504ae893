"""Load a family's stock diffusers pipeline from what is on this machine."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.hooks import apply_group_offloading
from torch import nn

from npo_core.catalog import hub
from npo_core.catalog.families import ModelFamily
from npo_core.catalog.references import locate
from npo_core.errors import InputError
from npo_core.sampling.placement import RESIDENT, STREAMED, Placement

PIPELINES = (StableDiffusionPipeline, StableDiffusionXLPipeline)


def load_pipeline(family: ModelFamily, dtype: torch.dtype = torch.float32, safety: bool = True) -> Any:
    """The pipeline of `family` with the base's UNet: a StableDiffusionPipeline or StableDiffusionXLPipeline.

    `safety` False leaves out its safety checker, for those that have one.
    Raises InputError when it is missing or cannot be loaded. Nothing is downloaded.
    """
    hub.require(family, kinds=("pipeline", "component"))
    folder = locate(family.pipeline or family.base)
    try:
        replaced: dict[str, Any] = {}
        if family.pipeline:
            replaced["unet"] = _component(UNet2DConditionModel, locate(f"{family.base}/unet"), dtype)
        if family.vae:
            replaced["vae"] = _component(AutoencoderKL, locate(family.vae), dtype)
        if not safety and hub.has_component(folder, "safety_checker"):
            replaced |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, variant=hub.variant(folder / "unet"), **replaced
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The model {family.base} of {family.label} cannot be loaded ({reason}); fetch or copy it again."
        ) from None
    if not isinstance(pipeline, PIPELINES):
        allowed = " and ".join(allowed.__name__ for allowed in PIPELINES)
        raise InputError(f"{family.base} is a {type(pipeline).__name__}; the lab runs {allowed}.")
    return _in_safe_precision(pipeline)


def place(pipeline: Any, placement: Placement, device: torch.device) -> None:
    """Puts the parts of `pipeline` where `placement` wants them, with diffusers' group offloading."""
    if placement.name == RESIDENT:
        pipeline.to(device)
        return
    host, waits = torch.device("cpu"), device.type == "cuda"
    for name, part in pipeline.components.items():
        if not isinstance(part, nn.Module):
            continue
        if name == "unet":
            place_unet(part, placement, device)
        else:
            apply_group_offloading(part, device, host, offload_type="leaf_level", use_stream=waits)


def place_unet(unet: nn.Module, placement: Placement, device: torch.device) -> None:
    """As `place`, for the UNet alone."""
    if placement.name != STREAMED:
        unet.to(device)
        return
    host, waits = torch.device("cpu"), device.type == "cuda"
    apply_group_offloading(unet, device, host, offload_type="block_level", num_blocks_per_group=1, use_stream=waits)


def size_bytes(module: nn.Module) -> int:
    """What the parameters and buffers of `module` take."""
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def free_bytes(device: torch.device) -> int | None:
    """What `device` could still give to tensors; None for a CPU, which has none of its own, or if it cannot tell."""
    if device.type != "cuda":
        return None
    try:
        free, _ = torch.cuda.mem_get_info(device)
    except RuntimeError:  # a GPU that is lent for each call (ZeroGPU) cannot be asked before
        return None
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def free_unused(device: torch.device) -> None:
    """Gives back what tensors that are gone still hold."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _component(model: Any, folder: Path, dtype: torch.dtype) -> Any:
    return model.from_pretrained(folder, dtype=dtype, use_safetensors=True, variant=hub.variant(folder))


def _in_safe_precision(pipeline: Any) -> Any:
    """SDXL's published VAE overflows in float16 and says so in its config: it stays in float32."""
    is_xl = isinstance(pipeline, StableDiffusionXLPipeline)
    if is_xl and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)
    return pipeline
