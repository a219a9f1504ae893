"""Load a family's stock diffusers pipelines, for pictures and for clips, from what is on this machine."""

from __future__ import annotations

import gc
import logging
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DiffusionPipeline,
    MotionAdapter,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.hooks import apply_group_offloading
from torch import nn

from npo_core.catalog import hub
from npo_core.catalog.adapter_files import locate_adapter, weight_files
from npo_core.catalog.families import ModelFamily
from npo_core.catalog.references import locate
from npo_core.errors import InputError
from npo_core.sampling.placement import (
    PLACEMENTS,
    RESIDENT,
    STREAMED,
    Footprint,
    Placement,
    choose_placement,
    working_bytes,
)

PIPELINES = (StableDiffusionPipeline, StableDiffusionXLPipeline)
WHOLE_UNET_SHARE = 0.4  # of a UNet's bytes, above which a file of weights is one (half precision halves it)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A family's stock pipeline, on the device where it runs.

    The tokenizer keeps its truncation settings in itself: who counts tokens or encodes a prompt holds `tokenizer_lock`,
    which the pipelines for pictures and for clips share as they share the tokenizer.
    """

    family: ModelFamily
    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    placement: Placement
    tokenizer_lock: threading.Lock = field(default_factory=threading.Lock)


def load_model(
    family: ModelFamily, device: str | None = None, dtype: torch.dtype | None = None, safety: bool = True
) -> LoadedModel:
    """The base of `family`, placed on `device`, by default the GPU where there is one; `dtype` is float32 on a CPU and
    float16 elsewhere unless given. `safety` False leaves out its safety checker.

    Raises InputError when it cannot be loaded.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind = dtype or (torch.float32 if where.type == "cpu" else torch.float16)
    pipeline = load_pipeline(family, kind, safety)
    placement = choose_placement(_footprint(pipeline, family), free_bytes(where))
    place(pipeline, placement, where)
    logger.info(
        "Loaded %s on %s in %s, placement %s (%s): %s.",
        family.name,
        where,
        str(kind).removeprefix("torch."),
        placement.name,
        placement.reason,
        PLACEMENTS[placement.name],
    )
    return LoadedModel(family, pipeline, where, kind, placement)


def add_motion(model: LoadedModel) -> LoadedModel:
    """`model` with the pipeline for clips, which shares every weight with that for pictures; the motion adapter is new.

    Raises InputError when the adapter is missing, does not fit the base, or does not fit into memory beside it.
    """
    pipeline = build_clip_pipeline(model.pipeline, model.family)
    try:
        place_unet(pipeline.unet, model.placement, model.device)
        logger.info("Loaded the motion adapter of %s.", model.family.name)
        return replace(model, pipeline=pipeline)
    except torch.OutOfMemoryError:
        pass  # handled outside, or the exception would keep alive what filled the memory
    free_unused(model.device)
    raise InputError(
        f"The motion adapter of {model.family.label} does not fit into this device's memory beside the model; "
        "close what else uses it, or make pictures only."
    )


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
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The model {family.base} of {family.label} cannot be loaded ({reason}); fetch or copy it again."
        ) from None
    if not isinstance(pipeline, PIPELINES):
        allowed = " and ".join(allowed.__name__ for allowed in PIPELINES)
        raise InputError(f"{family.base} is a {type(pipeline).__name__}; the lab runs {allowed}.")
    _check_vae(pipeline, family)
    return _in_safe_precision(pipeline)


def build_clip_pipeline(pictures: Any, family: ModelFamily) -> Any:
    """An AnimateDiffPipeline with the parts of the family's StableDiffusionPipeline (whose UNet may be routed) and its
    motion adapter; no weights are copied.

    Raises InputError when the adapter is missing or does not fit the UNet.
    """
    assert family.video is not None
    motion_adapter = load_motion_adapter(family, pictures.unet.dtype)
    unet = getattr(pictures.unet, "unet", pictures.unet)
    try:
        moving = UNetMotionModel.from_unet2d(unet, motion_adapter)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The motion adapter does not fit this base ({str(error).splitlines()[0]}); give one made for it."
        ) from None
    for giver in (unet, motion_adapter):
        share_weights(moving, giver)
    schedule = {"beta_schedule": family.video.beta_schedule} if family.video.beta_schedule else {}
    pipeline: Any = AnimateDiffPipeline(
        vae=pictures.vae,
        text_encoder=pictures.text_encoder,
        tokenizer=pictures.tokenizer,
        unet=moving,
        motion_adapter=motion_adapter,
        scheduler=type(pictures.scheduler).from_config(pictures.scheduler.config, **schedule),
    )
    pipeline.register_to_config(_name_or_path=getattr(pictures.config, "_name_or_path", None))
    return pipeline


def is_of_clips(pipeline: Any) -> bool:
    """Whether this pipeline makes clips."""
    return isinstance(pipeline, AnimateDiffPipeline)


def share_weights(taker: nn.Module, giver: Any) -> None:
    """Makes `taker` use the very tensors of `giver` for all weights that it has under the same names."""
    taker.load_state_dict(giver.state_dict(), strict=False, assign=True)


def load_motion_adapter(family: ModelFamily, dtype: torch.dtype = torch.float32) -> MotionAdapter:
    """The motion adapter of `family`; raises InputError when it is missing or cannot be loaded."""
    assert family.video is not None
    hub.require(family, "video")
    folder = locate(family.video.motion_adapter)
    try:
        return MotionAdapter.from_pretrained(folder, dtype=dtype, use_safetensors=True, variant=hub.variant(folder))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The motion adapter {family.video.motion_adapter} of {family.label} cannot be loaded ({reason}); "
            "fetch or copy it again."
        ) from None


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
    """The `model`, a class of diffusers, in `folder`; InputError where another class's weights are there."""
    try:
        kind = model.load_config(folder).get("_class_name", model.__name__)
        if kind == model.__name__:
            return model.from_pretrained(folder, dtype=dtype, use_safetensors=True, variant=hub.variant(folder))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder} cannot be loaded as {model.__name__} ({reason}); fetch or copy it again.") from None
    raise InputError(f"{folder} holds an {kind}, and here an {model.__name__} is needed; give one.")


def _check_vae(pipeline: Any, family: ModelFamily) -> None:
    """Raises InputError unless the VAE makes what the UNet reads."""
    made, read = pipeline.vae.config.latent_channels, pipeline.unet.config.in_channels
    if made != read:
        raise InputError(
            f"The VAE of {family.label} makes latents of {made} channels and its UNet reads {read}; give a VAE that "
            "was made for this base."
        )


def _in_safe_precision(pipeline: Any) -> Any:
    """SDXL's published VAE overflows in float16 and says so in its config: it stays in float32."""
    is_xl = isinstance(pipeline, StableDiffusionXLPipeline)
    if is_xl and pipeline.vae.config.force_upcast:
        pipeline.vae.to(torch.float32)
    return pipeline


def _footprint(pipeline: Any, family: ModelFamily) -> Footprint:
    """What the loaded pipeline takes, and a comparison at the family's own size on top."""
    sizes = {name: size_bytes(part) for name, part in pipeline.components.items() if isinstance(part, nn.Module)}
    unet = pipeline.unet
    working = working_bytes(
        family.height_px,
        family.width_px,
        pipeline.vae_scale_factor,
        unet.config.block_out_channels[0],
        unet.dtype.itemsize,
    )
    others = sum(sizes.values()) - sizes["unet"]
    return Footprint(sizes["unet"], others, working, _fine_tuned_bytes(family, sizes["unet"]))


def _fine_tuned_bytes(family: ModelFamily, unet: int) -> int:
    """What the family's aligned model takes where it is a whole UNet, of `unet` bytes as all of them: 0 for a LoRA."""
    if family.aligned is None:
        return 0
    try:
        on_disk = sum(part.stat().st_size for part in weight_files(locate_adapter(family.aligned)))
    except InputError:  # told when it is loaded
        return 0
    return unet if on_disk > WHOLE_UNET_SHARE * unet else 0
