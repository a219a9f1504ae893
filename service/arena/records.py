"""What the database keeps of a comparison that was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from collection.types import Generation
from npo_core.generator import Comparison


def generation_record(made: Comparison, number: int, comparison_id: str) -> Generation:
    """Sample `number` of a comparison, with everything needed to make it again."""
    request, sample = made.request, made.samples[number]
    aligned, negative = made.adapters.get("aligned"), made.adapters.get("negative")
    return Generation(
        comparison_id=comparison_id,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        family=made.family,
        modality=request.modality,
        variant=sample.variant,
        aligned_id=aligned.id if aligned else None,
        aligned_sha256=aligned.sha256 if aligned else None,
        negative_id=negative.id if negative else None,
        negative_sha256=negative.sha256 if negative else None,
        alpha=float(request.alpha),
        beta=float(request.beta),
        guidance_scale=float(request.guidance_scale),
        steps=request.steps,
        scheduler=request.scheduler,
        width_px=request.width_px,
        height_px=request.height_px,
        frames=request.frames,
        fps=request.fps,
        versions={**made.versions, **made.execution},
        elapsed_s=made.elapsed_s,
        media=sample.media,
        media_type=sample.media_type,
        media_sha256=sample.media_sha256,
        latents=sample.latents,
    )


def shared_settings(generations: Sequence[Generation]) -> dict[str, Any]:
    """What the pictures or clips of one comparison share, as plain values."""
    shared = vars(replace(generations[0], latents=None))
    own = ("id", "variant", "media", "media_sha256", "media_type", "latents", "created_at")
    return {name: value for name, value in shared.items() if name not in own}
