"""The model families that can be compared: one entry each, read by the command lines, the web page and the tests.

Importing this module is cheap (no torch, no diffusers), so that a page can list the families before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npo_core.errors import InputError

EMOJI_FOLDER = Path(__file__).parent / "emoji"

MODALITIES = ("image", "video")

SCHEDULERS: dict[str, str] = {  # our name -> class name in diffusers
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
}


@dataclass(frozen=True)
class VideoSettings:
    """What makes a family of pictures one of clips (AnimateDiff), and the settings its clips look best at.

    `motion_adapter` is a folder or Hub id of a MotionAdapter in diffusers layout. `frames` is the length it was
    trained with; longer clips, up to `max_frames`, are sampled in windows of that length (FreeNoise).
    """

    motion_adapter: str
    steps: int
    guidance_scale: float
    scheduler: str
    frames: int = 16
    fps: float = 8.0
    max_frames: int = 64


@dataclass(frozen=True)
class ModelFamily:
    """A base model, what was learned on top of it, and the settings it looks best at.

    `base` is a folder or a Hub id in diffusers layout. `aligned` and `negative` are folders or files of LoRA weights
    (safetensors) for eta = aligned - base and for the NPO offset delta; None where the family has none. `alpha` and
    `beta` are the defaults of the negative branch, theta + alpha*eta + beta*delta. `guide` is the path of a
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
    size_multiple_px: int = 8  # how many pixels one latent spans
    video: VideoSettings | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it makes."""
        return MODALITIES if self.video is not None else MODALITIES[:1]

    def default(self, name: str, modality: str) -> Any:
        """The default of the request's setting `name`; a clip has some of its own, a picture one frame and no fps."""
        if modality == "video" and self.video is not None and hasattr(self.video, name):
            return getattr(self.video, name)
        return {"frames": 1, "fps": None}[name] if name in ("frames", "fps") else getattr(self, name)


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
            beta=1.0,
            scheduler="ddim",
            guide=str(EMOJI_FOLDER / "vocabulary.json"),
            scorer=str(EMOJI_FOLDER / "scorer.safetensors"),
            size_multiple_px=16,
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

    `config` is the configuration of the pipeline's own scheduler. Raises InputError for an unknown name.
    """
    if name not in SCHEDULERS:
        raise InputError(f"Unknown scheduler {name!r}; choose from {', '.join(SCHEDULERS)}.")
    import diffusers

    return getattr(diffusers, SCHEDULERS[name]).from_config(config)
