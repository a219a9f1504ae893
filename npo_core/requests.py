"""What may be asked for: the request, its limits, and the family's defaults filled in. Pure; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from npo_core.catalog.families import SCHEDULERS, ModelFamily
from npo_core.errors import InputError
from npo_core.variants import DEFAULT_VARIANTS, get_variant

MAX_SEED = 2**63 - 1  # a signed 64-bit integer, which every database keeps
MAX_STEPS = 200
MAX_GUIDANCE_SCALE = 30.0
MIN_FRAMES = 2
FPS_RANGE = (1.0, 60.0)
MIX_RANGE = (-2.0, 4.0)  # of alpha and beta; both have their meaning at 0 and 1, beyond is for exploring


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt and seed, to be sampled by every variant from the same noise. None means the family's default."""

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    variants: tuple[str, ...] = DEFAULT_VARIANTS
    modality: str = "image"
    steps: int | None = None
    guidance_scale: float | None = None
    alpha: float | None = None
    beta: float | None = None
    scheduler: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    frames: int | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest(GenerationRequest):
    """A request that was checked and in which nothing is left to a default. A picture has one frame and no fps."""

    steps: int = field()  # field() so that the None of GenerationRequest is not inherited as a default
    guidance_scale: float = field()
    alpha: float = field()
    beta: float = field()
    scheduler: str = field()
    width_px: int = field()
    height_px: int = field()
    frames: int = field()

    @property
    def plural(self) -> str:
        """What it asks for, to a person."""
        return "clips" if self.modality == "video" else "pictures"


def resolve_request(request: GenerationRequest, family: ModelFamily) -> ResolvedRequest:
    """`request` with the family's defaults filled in; raises InputError for anything out of range.

    The length of the prompt in tokens is not checked here, for that needs the tokenizer: see `Generator`.
    """
    values: dict[str, Any] = {entry.name: getattr(request, entry.name) for entry in fields(GenerationRequest)}
    for name, value in values.items():
        if value is None:
            values[name] = family.default(name, request.modality)
    resolved = ResolvedRequest(**values)
    _check_choices(resolved, family)
    _check_numbers(resolved)
    _check_length(resolved, family)
    for name in ("width_px", "height_px"):
        _check_size(name, getattr(resolved, name), getattr(family, name), family.size_multiple_px)
    return resolved


def parse_numbers(text: str, what: str) -> tuple[float, ...]:
    """The numbers in "0, 0.5, 1"; raises InputError, beginning with `what`, when they are none or one comes twice."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{what} is {text!r}; give numbers with commas between, such as 0,0.5,1.") from None
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{what} is {text!r} and has a number twice; give each once.")
    return numbers


def _check_choices(request: ResolvedRequest, family: ModelFamily) -> None:
    if not request.prompt.strip():
        raise InputError("The prompt is empty; write what the picture should show.")
    if not request.variants:
        raise InputError(f"No variant was asked for; name at least one, such as {DEFAULT_VARIANTS[0]}.")
    for name in request.variants:
        get_variant(name)
    if len(set(request.variants)) < len(request.variants):
        raise InputError(f"The variants {', '.join(request.variants)} name one twice; name each once.")
    if request.modality not in family.modalities:
        raise InputError(
            f"Family {family.name!r} does not make modality {request.modality!r}; "
            f"choose from {', '.join(family.modalities)}."
        )
    if request.scheduler not in SCHEDULERS:
        raise InputError(f"Unknown scheduler {request.scheduler!r}; choose from {', '.join(SCHEDULERS)}.")


def _check_numbers(request: ResolvedRequest) -> None:
    _check_integer("The seed", request.seed, 0, MAX_SEED)
    _check_integer("The number of steps", request.steps, 1, MAX_STEPS)
    guidance = request.guidance_scale
    if not (_is_number(guidance) and 0 < guidance <= MAX_GUIDANCE_SCALE):
        raise InputError(f"The guidance scale is {guidance}; give a number above 0 and at most {MAX_GUIDANCE_SCALE:g}.")
    low, high = MIX_RANGE
    for name in ("alpha", "beta"):
        value = getattr(request, name)
        if not (_is_number(value) and low <= value <= high):
            raise InputError(f"{name.capitalize()} is {value}; give a number from {low:g} to {high:g}.")


def _check_length(request: ResolvedRequest, family: ModelFamily) -> None:
    if request.modality != "video" or family.video is None:
        if (request.frames, request.fps) != (1, None):
            raise InputError("A picture has one frame; leave frames and fps out, or ask for modality 'video'.")
        return
    _check_integer("The number of frames", request.frames, MIN_FRAMES, family.video.max_frames)
    low, high = FPS_RANGE
    if not (_is_number(request.fps) and low <= (request.fps or 0) <= high):
        raise InputError(f"The number of frames a second is {request.fps}; give a number from {low:g} to {high:g}.")


def _check_integer(what: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{what} is {value}; give a whole number from {low} to {high}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_size(name: str, value_px: object, family_px: int, multiple_px: int) -> None:
    """Far from the size it was trained at a model repeats or loses objects, so half to twice that is allowed."""
    low, high = math.ceil(family_px / 2 / multiple_px) * multiple_px, 2 * family_px
    what = f"The {name.removesuffix('_px')} in pixels"
    _check_integer(what, value_px, low, high)
    if isinstance(value_px, int) and value_px % multiple_px:
        raise InputError(f"{what} is {value_px}; give a multiple of {multiple_px} from {low} to {high}.")
