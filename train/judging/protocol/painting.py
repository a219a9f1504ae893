"""Pictures of many prompts and many pairs of Mixes in one call of the stock pipeline, as tensors for the judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from npo_core.catalog.adapter_files import AdapterFile, Role
from npo_core.catalog.families import ModelFamily
from npo_core.requests import ResolvedRequest
from npo_core.routing.network import guided_rows
from npo_core.sampling.pipelines import load_model
from npo_core.sampling.sampler import Sampler
from npo_core.variants import Mix
from npo_core.weights import AdapterWeights
from train.judging.protocol.contenders import WHOLE, Setting

UNGUIDED = 1 + 1e-6  # as good as 1, where the pipeline would leave the unconditional rows out
DECODED_AT_ONCE = 64


class Painter:
    """Paints with one family's weights; takes adapters as they are needed and keeps those that it has read."""

    def __init__(self, family: ModelFamily, device: str | None = None, dtype: torch.dtype | None = None) -> None:
        self._sampler = Sampler(load_model(family, device, dtype, safety=False))
        self._read: dict[str, AdapterWeights] = {}
        self._worn: dict[Role, str] = {}

    @property
    def device(self) -> torch.device:
        """Where the pictures are."""
        return self._sampler.device

    def check(self, request: ResolvedRequest) -> None:
        """Raises InputError for a prompt that is too long."""
        self._sampler.check(request)

    def wear(self, adapters: Mapping[Role, AdapterFile]) -> None:
        """Puts on the adapters of the next pictures."""
        for role, adapter in adapters.items():
            if adapter.sha256 not in self._read:
                self._read[adapter.sha256] = self._sampler.read_adapter(adapter)
            if self._worn.get(role) != adapter.sha256:
                self._sampler.set_adapter(role, self._read[adapter.sha256])
                self._worn[role] = adapter.sha256

    @torch.no_grad()
    def paint(
        self,
        requests: Sequence[ResolvedRequest],
        pairs: Sequence[tuple[Mix, Mix]],
        rescale: float = 0.0,
        interval: tuple[float, float] = WHOLE,
        gate: tuple[float, float] = WHOLE,
    ) -> Tensor:
        """(pairs, requests, 3, H, W) in [0, 1], in whole 255ths as a PNG has them: every request, all of which agree in
        all but prompt and seed, with every (conditional, unconditional) pair, from the request's own noise."""
        copies = list(requests) * len(pairs)
        rows = [pair for pair in pairs for _ in requests]
        more = _guided_in(interval, requests[0]) if interval != WHOLE else {}
        if gate != WHOLE:
            rows, more = self._gated(gate, rows, requests[0].guidance_scale)
        latents = self._sampler.denoise(copies, rows, guidance_rescale=rescale, **more)
        vae = self._sampler.pipeline.vae
        parts = [
            vae.decode(part.to(vae.dtype) / vae.config.scaling_factor).sample.float()
            for part in latents.split(DECODED_AT_ONCE if self.device.type == "cuda" else 1)
        ]
        pixels = ((torch.cat(parts) / 2 + 0.5).clamp(0, 1) * 255).round() / 255
        return pixels.unflatten(0, (len(pairs), len(requests)))

    def _gated(
        self, gate: tuple[float, float], rows: list[tuple[Mix, Mix]], guidance_scale: float
    ) -> tuple[list[tuple[Mix, Mix]], dict[str, Any]]:
        """(the rows of the first step, the pipeline's arguments) for a delta that counts within `gate` alone, in all
        steps that guidance is in."""
        shut = [(conditional, replace(unconditional, negative=0.0)) for conditional, unconditional in rows]

        def of(share: float) -> list[tuple[Mix, Mix]]:
            return rows if gate[0] <= share <= gate[1] else shut

        def after(pipeline: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
            scheduler = pipeline.scheduler
            if step + 1 < len(scheduler.timesteps):
                share = float(scheduler.timesteps[step + 1]) / scheduler.config.num_train_timesteps
                self._sampler.unet.change_rows(guided_rows(of(share), guidance_scale))
            return {}

        return of(1.0), {"callback_on_step_end": after}


def to_images(pixels: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] as pictures."""
    return [Image.fromarray(each) for each in (255 * pixels).round().byte().permute(0, 2, 3, 1).cpu().numpy()]


def _guided_in(interval: tuple[float, float], request: ResolvedRequest) -> dict[str, Any]:
    """The pipeline's arguments for guidance in a share of its steps: it reads its own scale anew in each."""

    def scale(step: int) -> float:
        return request.guidance_scale if interval[0] <= step / request.steps < interval[1] else UNGUIDED

    def after(pipeline: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        pipeline._guidance_scale = scale(step + 1)
        return {}

    return {"guidance_scale": scale(0), "callback_on_step_end": after}


def requests_for(
    family: ModelFamily, prompts: Sequence[str], seeds: Sequence[int], setting: Setting, steps: int | None = None
) -> list[ResolvedRequest]:
    """One request for each prompt and its seed; raises InputError for what the family does not make."""
    from npo_core.requests import GenerationRequest, resolve_request

    return [
        resolve_request(
            GenerationRequest(
                prompt, seed=seed, variants=("base",), guidance_scale=setting.guidance_scale, steps=steps
            ),
            family,
        )
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
