"""The model families that can be compared: one entry each, read by the command lines, the web page and the tests.

Importing this module is cheap (no torch, no diffusers), so that a page can list the families before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npo_core.errors import InputError

EMOJI_FOLDER = Path(__file__).parents[1] / "emoji"

MODALITIES = ("image", "video")

SCHEDULERS: dict[str, str] = {  # our name -> class name in diffusers
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
}


@dataclass(frozen=True)
class VideoSettings:
    """What makes a family of pictures one of clips (AnimateDiff), and the settings its clips look best at.

    `motion_adapter` is the reference of a MotionAdapter in diffusers layout, and `beta_schedule` the noise schedule
    that it was trained with where that is not the base's. `frames` is the length it was trained with; longer clips, up
    to `max_frames`, are sampled in windows of that length (FreeNoise).
    """

    motion_adapter: str
    steps: int
    guidance_scale: float
    scheduler: str
    frames: int = 16
    fps: float = 8.0
    max_frames: int = 64
    beta_schedule: str | None = None


@dataclass(frozen=True)
class ModelFamily:
    """A base model, what was learned on top of it, and the settings it looks best at.

    Weights are named by references: a path, or a Hub id with the place inside the repository (see `hub`). `base` is a
    pipeline in diffusers layout and its UNet is theta. `aligned` and `negative` are LoRAs, or whole UNets, for
    eta = aligned - base and for the NPO offset delta; None where the family has none. `alpha` and `beta` are the
    defaults of the negative branch, theta + alpha*eta + beta*delta. Where `pipeline` is given, everything but the UNet
    (text encoder, VAE, schedule) is that pipeline's: a fine-tuned model then paints as it was published, and the base
    is its starting point's UNet in the same surroundings. `vae` replaces the VAE. `guide` is the path of a
    `vocabulary.json` for `prompts.load_guide`; `scorer` is what the family's scorer loads. `video` is None for a family
    that makes no clips.
    """

    name: str
    label: str
    description: str
    base: str
    aligned: str | None
    negative: str | None
    width_px: int
    height_px: int
    steps: int
    guidance_scale: float
    alpha: float
    beta: float
    scheduler: str
    guide: str | None = None
    scorer: str | None = None
    suggestions: tuple[str, ...] = ()  # prompts to try, where there is no vocabulary
    size_multiple_px: int = 8  # how many pixels one latent spans
    pipeline: str | None = None
    vae: str | None = None
    video: VideoSettings | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it makes."""
        return MODALITIES if self.video is not None else MODALITIES[:1]

    def at_shares(self, trained_for: Mapping[str, float]) -> ModelFamily:
        """The family with the alpha and beta that a negative adapter was trained for as its defaults, where it says."""
        alpha, beta = (trained_for.get(name, own) for name, own in (("alpha", self.alpha), ("beta", self.beta)))
        return replace(self, alpha=alpha, beta=beta)

    def default(self, name: str, modality: str) -> Any:
        """The default of the request's setting `name`; a clip has some of its own, a picture one frame and no fps."""
        if modality == "video" and self.video is not None and hasattr(self.video, name):
            return getattr(self.video, name)
        return {"frames": 1, "fps": None}[name] if name in ("frames", "fps") else getattr(self, name)


NPO_WEIGHTS = "wangfuyun/Diffusion-NPO/weights"  # published with the paper

SUGGESTIONS = (
    "a lighthouse on a cliff in a storm, oil painting",
    "portrait of an old fisherman, soft window light, photograph",
    "a red fox in fresh snow, early morning",
    "a small bakery on a rainy street at night, watercolour",
    "a bowl of ramen on a wooden table, steam, close-up",
    "a glass greenhouse full of ferns, afternoon sun",
)

SD15 = ModelFamily(
    name="sd15",
    label="Stable Diffusion 1.5",
    description="Aligned by Diffusion-DPO, as published; the NPO offset of the paper.",
    base="stable-diffusion-v1-5/stable-diffusion-v1-5",
    aligned="mhdang/dpo-sd1.5-text2image-v1/unet",
    negative=f"{NPO_WEIGHTS}/sd15/sd15_beta500_2kiter.safetensors",
    width_px=512,
    height_px=512,
    steps=25,
    guidance_scale=7.5,
    alpha=1.0,
    beta=1.0,
    scheduler="dpmsolver++",
    suggestions=SUGGESTIONS,
    video=VideoSettings(
        motion_adapter="guoyww/animatediff-motion-adapter-v1-5-3",
        steps=25,
        guidance_scale=7.5,
        scheduler="ddim",
        beta_schedule="linear",
    ),
)
SDXL = replace(
    SD15,
    name="sdxl",
    label="SDXL",
    base="stabilityai/stable-diffusion-xl-base-1.0",
    aligned="mhdang/dpo-sdxl-text2image-v1/unet",
    negative=f"{NPO_WEIGHTS}/sdxl/sdxl_beta2k_2kiter.safetensors",
    width_px=1024,
    height_px=1024,
    guidance_scale=5.0,
    vae="madebyollin/sdxl-vae-fp16-fix",  # the published one overflows in float16
    video=None,
)

FAMILIES: dict[str, ModelFamily] = {
    family.name: family
    for family in (
        ModelFamily(
            name="emoji",
            label="Emoji",
            description="A small latent diffusion model of emoji-like pictures that ships with the project.",
            base=str(EMOJI_FOLDER),
            aligned=str(EMOJI_FOLDER / "aligned"),
            negative=str(EMOJI_FOLDER / "negative"),
            width_px=128,
            height_px=128,
            steps=20,
            guidance_scale=4.0,
            alpha=1.0,
            beta=0.4,  # guidance 4 pushes it three times as hard: about as hard as alignment itself
            scheduler="ddim",
            guide=str(EMOJI_FOLDER / "vocabulary.json"),
            scorer=str(EMOJI_FOLDER / "scorer.safetensors"),
            size_multiple_px=8,
            video=VideoSettings(str(EMOJI_FOLDER / "motion"), steps=12, guidance_scale=4.0, scheduler="ddim"),
        ),
        SD15,
        replace(
            SD15,
            name="sd15-spo",
            label="Stable Diffusion 1.5, SPO",
            description="Aligned by step-aware preference optimization (SPO), a LoRA; the NPO offset of the paper.",
            aligned="SPO-Diffusion-Models/SPO-SD-v1-5_4k-p_10ep_LoRA/spo-sd-v1-5_4k-p_10ep_lora_diffusers.safetensors",
            steps=20,
            guidance_scale=5.0,
            scheduler="ddim",
        ),
        replace(
            SD15,
            name="dreamshaper",
            label="DreamShaper",
            description="The fine-tuned DreamShaper as the aligned model of SD1.5; the paper's NPO offset.",
            aligned="Lykon/DreamShaper/unet",
            pipeline="Lykon/DreamShaper",
        ),
        SDXL,
        replace(
            SDXL,
            name="sdxl-spo",
            label="SDXL, SPO",
            description="Aligned by step-aware preference optimization (SPO), a LoRA; the NPO offset trained on SPO.",
            aligned="SPO-Diffusion-Models/SPO-SDXL_4k-p_10ep_LoRA/spo_sdxl_10ep_4k-data_lora_diffusers.safetensors",
            negative=f"{NPO_WEIGHTS}/sdxl/spo_npo_10ep.safetensors",
            steps=20,
            scheduler="ddim",
        ),
        replace(
            SDXL,
            name="juggernaut",
            label="Juggernaut XL",
            description="The fine-tuned Juggernaut XL v9 as the aligned model of SDXL; the paper's NPO offset.",
            aligned="RunDiffusion/Juggernaut-XL-v9/unet",
            pipeline="RunDiffusion/Juggernaut-XL-v9",
        ),
    )
}


def get_family(name: str) -> ModelFamily:
    """The family called `name`; raises InputError naming the known ones."""
    try:
        return FAMILIES[name]
    except KeyError:
        raise InputError(f"Unknown family {name!r}; choose from {', '.join(FAMILIES)}.") from None


def build_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """A fresh scheduler of SCHEDULERS with the noise schedule and prediction type that the model was trained with.

    `config` is the configuration of the pipeline's own scheduler. Latents are never clipped to -1 and 1, as DDIM does
    with pixels where the configuration, of another scheduler's making, does not say. Raises InputError for an unknown
    name.
    """
    if name not in SCHEDULERS:
        raise InputError(f"Unknown scheduler {name!r}; choose from {', '.join(SCHEDULERS)}.")
    import diffusers

    unclipped = {"clip_sample": False} if name == "ddim" else {}
    return getattr(diffusers, SCHEDULERS[name]).from_config({**config, **unclipped})
