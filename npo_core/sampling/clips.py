"""Clips: the stock AnimateDiffPipeline over the weights of a loaded family of pictures, routed like them.

AnimateDiff (arXiv 2307.04725) puts temporal attention between the layers of a UNet for pictures. So one base serves
both: `ClipSampler` shares every weight with the `Sampler` it is made from and adds the motion adapter's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from npo_core.catalog.families import VideoSettings
from npo_core.errors import InputError
from npo_core.progress import OnStep, StepProgress
from npo_core.requests import ResolvedRequest
from npo_core.sampling.pipelines import add_motion
from npo_core.sampling.sampler import Sampler
from npo_core.variants import Mix

WINDOW_STRIDE = 4  # frames between the windows of a long clip, as in the FreeNoise paper


class ClipSampler(Sampler):
    """Samples clips with the weights of a loaded `Sampler` of pictures and a motion adapter. Its LoRAs are its own."""

    def __init__(self, pictures: Sampler) -> None:
        """Loads the motion adapter; raises InputError when it is missing or does not fit the base."""
        super().__init__(add_motion(pictures.model), pictures.routing)
        self._pictures = pictures
        self._at_once: int | None = None  # clips in one call; None until memory ran out

    @property
    def video(self) -> VideoSettings:
        """The family's settings for clips; a family without them makes none, so that nobody gets here."""
        assert self.family.video is not None
        return self.family.video

    def denoise(
        self,
        copies: Sequence[ResolvedRequest],
        pairs: Sequence[tuple[Mix, Mix]],
        on_step: OnStep | None = None,
        **more: Any,
    ) -> Tensor:
        """The final latents (clips, F, C, H, W). All in one call or, where memory does not do for that, in several.

        Clips do not depend on what else is in a call, so this changes the time alone.
        """
        size = min(self._at_once or len(copies), len(copies))
        starts = range(0, len(copies), size)
        parts = []
        try:
            with self._windows(copies[0].frames):
                for number, start in enumerate(starts):
                    some = slice(start, start + size)
                    follow = on_step if len(starts) == 1 else _part_of(on_step, number, len(starts))
                    parts.append(super().denoise(copies[some], pairs[some], follow, **more))
        except torch.OutOfMemoryError:
            if size == 1:
                clip = copies[0]
                raise InputError(
                    f"A clip of {clip.frames} frames at {clip.width_px}x{clip.height_px} pixels does not fit into "
                    "this card's memory; ask for fewer frames or a smaller size."
                ) from None
        else:
            return torch.cat(parts).transpose(1, 2)  # (clips, C, F, H, W) -> (clips, F, C, H, W)
        # Outside of the handler, or the exception would keep alive what filled the memory.
        torch.cuda.empty_cache()
        self._at_once = size // 2
        return self.denoise(copies, pairs, on_step, **more)

    def _noise(self, copies: Sequence[ResolvedRequest]) -> dict[str, Any]:
        shared = copies[0]
        scale = self.pipeline.vae_scale_factor
        shape = (self.unet.config.in_channels, shared.height_px // scale, shared.width_px // scale)
        noise = [clip_noise(request.seed, request.frames, shape, self.video.frames, self.dtype) for request in copies]
        return {"latents": torch.stack(noise).to(self.device), "num_frames": shared.frames}

    def decode(self, latents: Tensor) -> list[list[Image.Image]]:
        """The frames of every clip, from (clips, F, C, H, W), a few at a time."""
        images = [image for (image,) in self._pictures.decode(latents.flatten(0, 1))]
        frames = latents.shape[1]
        return [images[start : start + frames] for start in range(0, len(images), frames)]

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """The middle frame of every clip, from (clips, C, F, H, W) as the pipeline has them."""
        return self._pictures.preview(latents[:, :, latents.shape[2] // 2])

    def flagged(self, images: Sequence[Image.Image]) -> list[bool]:
        """By the checker of the pipeline for pictures; that for clips has none."""
        return self._pictures.flagged(images)

    @contextmanager
    def _windows(self, frames: int) -> Iterator[None]:
        """Makes clips longer than the motion adapter was trained with attend in overlapping windows of its length.

        FreeNoise (arXiv 2310.15169, section 4). diffusers' own entrance takes one prompt for the whole batch, so
        prompts and noise are ours (`clip_noise`) and only the attention is its.
        """
        if frames <= self.video.frames:
            yield
            return
        pipeline = self.pipeline
        pipeline.enable_free_noise(context_length=self.video.frames, context_stride=WINDOW_STRIDE)
        pipeline._free_noise_context_length = None  # its own handling of prompts and noise stays off
        try:
            yield
        finally:
            for block in self.unet.unet.modules():
                if hasattr(block, "motion_modules"):
                    pipeline._disable_free_noise_in_block(block)


def _part_of(on_step: OnStep | None, number: int, parts: int) -> OnStep | None:
    """Reports the steps of part `number` of several calls as those of one; pictures of all are not to be had then."""
    if on_step is None:
        return None

    def report(progress: StepProgress) -> None:
        done = number * progress.total_steps + progress.step
        on_step(StepProgress(done, parts * progress.total_steps, list))

    return report


def clip_noise(seed: int, frames: int, shape: tuple[int, int, int], window: int, dtype: torch.dtype) -> Tensor:
    """The noise (C, F, H, W) that a clip of `seed` starts from; shape is (C, H, W).

    Up to `window` frames it is what the stock pipeline draws. The frames after those repeat the ones a window before
    them, WINDOW_STRIDE at a time in shuffled order (FreeNoise, arXiv 2310.15169, eq. 7).
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    channels, height, width = shape
    noise = torch.randn(channels, min(frames, window), height, width, generator=generator, dtype=dtype)
    order = list(range(min(frames, window)))
    while len(order) < frames:
        earlier = order[len(order) - window :][:WINDOW_STRIDE]
        order += [earlier[place] for place in torch.randperm(len(earlier), generator=generator)]
    return noise[:, order[:frames]]
