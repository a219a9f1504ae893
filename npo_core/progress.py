"""What a caller may follow while pictures are made. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class StepProgress:
    """Step `step` of `total_steps` (from 1) is done. `preview()` decodes the latents as they are then, one picture
    (of a clip its middle frame) for every variant of every request; it costs a VAE decode, so call it when the
    pictures will be looked at. It is empty where memory does not do for all clips at once."""

    step: int
    total_steps: int
    preview: Callable[[], list[Image.Image]]


OnStep = Callable[[StepProgress], None]
