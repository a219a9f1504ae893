"""Side-by-side generation: one prompt, one noise, every variant, in one call of a stock diffusers pipeline.

torch and diffusers are imported at the first use of a Generator, not with this module: that takes seconds, and a page
that only needs the names can be up before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from platform import python_version
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from npo_core.catalog import hub
from npo_core.catalog.adapter_files import AdapterFile, Role, adapter_file
from npo_core.catalog.families import MODALITIES, ModelFamily, get_family
from npo_core.errors import InputError
from npo_core.media.files import MP4_MEDIA_TYPE, PNG_MEDIA_TYPE, mp4_bytes, png_bytes, sha256_hex
from npo_core.progress import OnStep
from npo_core.requests import GenerationRequest, ResolvedRequest, resolve_request
from npo_core.routing.execution import check_routing

if TYPE_CHECKING:
    import torch

    from npo_core.sampling.sampler import Sampler

__all__ = [
    "AdapterFile",
    "Comparison",
    "GenerationRequest",
    "Generator",
    "ResolvedRequest",
    "Role",
    "Sample",
    "adapter_file",
    "library_versions",
]

logger = logging.getLogger(__name__)

LIBRARIES = ("torch", "diffusers", "transformers", "numpy")

# One call of the pipeline shares these; prompts, seed, variants, alpha and beta are each request's own.
SHARED_SETTINGS = ("modality", "steps", "guidance_scale", "scheduler", "width_px", "height_px", "frames", "fps")


@dataclass(frozen=True)
class Sample:
    """What one variant made. Nothing in `media` tells which variant it was.

    media: PNG or MP4. latents: float16, (C, H, W) of a picture or (F, C, H, W) of a clip, the final latents at UNet
    scale, before the VAE's own scaling is undone.
    """

    variant: str
    media: bytes
    media_type: str
    media_sha256: str
    latents: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """The samples of one request, in the order of its variants, and everything needed to make them again.

    `adapters` has the versions by role ("aligned", "negative"). `execution` says how it was run:
    "routing" is one of `execution.ROUTINGS`, "forward" is eager, cuda_graph or compiled_cuda_graph. `elapsed_s` is this
    request's share of the time that its batch took.
    """

    family: str
    request: ResolvedRequest
    samples: tuple[Sample, ...]
    adapters: dict[Role, AdapterFile]
    versions: dict[str, str]
    execution: dict[str, str]
    elapsed_s: float


class Generator:
    """Makes comparisons with one family's weights. Loads at first use; any number of threads may call it.

    Pictures and clips share the base and have adapters of their own: `aligned` and `negative` replace the family's for
    both, `use_adapter` for one. `device` is that of torch ("cpu", "cuda", ...), by default the GPU where there is one;
    `dtype` is float32 on a CPU and float16 elsewhere unless given. `routing` forces one of `execution.ROUTINGS`.
    `safety` False switches off the safety checker of families that have one: for research, not for a public page.
    Raises InputError for an unknown family or routing.
    """

    def __init__(
        self,
        family: str | ModelFamily,
        *,
        aligned: AdapterFile | None = None,
        negative: AdapterFile | None = None,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        routing: str | None = None,
        safety: bool = True,
    ) -> None:
        self.family = get_family(family) if isinstance(family, str) else family
        given = {adapter.role: adapter for adapter in (aligned, negative) if adapter is not None}
        self._chosen: dict[str, dict[Role, AdapterFile]] = {modality: dict(given) for modality in MODALITIES}
        self._device = device
        self._dtype = dtype
        check_routing(routing)
        self._routing = routing
        self._safety = safety
        self._base: Sampler | None = None  # of pictures, whether or not adapters are set yet; clips share its weights
        self._samplers: dict[str, Sampler] = {}  # by modality, with their adapters
        self._lock = threading.RLock()

    def load(self, modality: str = "image") -> None:
        """Loads the weights unless they are there; raises InputError when they are missing or do not fit."""
        self._loaded(modality)

    def unload(self) -> None:
        """Gives the memory back; the weights are loaded again at the next use. The adapters in use stay chosen."""
        with self._lock:
            if self._base is not None:
                from npo_core.sampling.pipelines import free_unused

                device, self._base = self._base.device, None
                for sampler in self._samplers.values():
                    sampler.unet.forget_recording()
                self._samplers.clear()
                free_unused(device)

    def warm_up(self) -> None:
        """Loads what pictures need and does beforehand whatever would make the first of them slow; see `Sampler`."""
        sampler = self._loaded("image")
        with self._lock:
            sampler.warm_up()

    def _loaded(self, modality: str) -> Sampler:
        if modality not in self._samplers:
            with self._lock:
                if modality not in self._samplers:  # another thread may have loaded it in the meantime
                    sampler = self._new_sampler(modality)
                    for adapter in self.adapters(modality).values():
                        sampler.set_adapter(adapter.role, sampler.read_adapter(adapter))
                    self._samplers[modality] = sampler
        return self._samplers[modality]

    def _new_sampler(self, modality: str) -> Sampler:
        """One without adapters: those for clips need not fit pictures, nor the other way round."""
        if self._base is None:
            self._base = self._new_base()
        if modality == "video":
            from npo_core.sampling.clips import ClipSampler

            return ClipSampler(self._base)
        return self._base

    def _new_base(self) -> Sampler:
        started_s = time.perf_counter()
        from npo_core.sampling.pipelines import load_model
        from npo_core.sampling.sampler import Sampler

        imported_s = time.perf_counter()
        sampler = Sampler(load_model(self.family, self._device, self._dtype, self._safety), self._routing)
        times = (imported_s - started_s, time.perf_counter() - imported_s)
        logger.info("Imported torch and diffusers in %.1f s, loaded the weights in %.1f s.", *times)
        return sampler

    def adapters(self, modality: str = "image") -> dict[Role, AdapterFile]:
        """The adapters in use by role; raises InputError when one of the family's own is missing."""
        chosen = self._chosen[modality]
        own: tuple[tuple[Role, str | None], ...] = (
            ("aligned", self.family.aligned),
            ("negative", self.family.negative),
        )
        for role, path in own:
            if path is not None and role not in chosen:
                hub.require(self.family)  # says all that is missing at once
                chosen.setdefault(role, adapter_file(path, role, id=f"{self.family.name}-{role}"))
        return dict(chosen)

    def use_adapter(self, adapter: AdapterFile, modality: str = "image") -> None:
        """Takes `adapter` in place of the one with its role, from the next generation of this modality on.

        Raises InputError, and keeps what was in use, when the file changed, is damaged or does not fit.
        """
        sampler = self._loaded(modality)
        weights = sampler.read_adapter(adapter)
        with self._lock:
            sampler.set_adapter(adapter.role, weights)
            self._chosen[modality][adapter.role] = adapter

    @property
    def token_limit(self) -> int:
        """How many tokens a prompt may have, without the two that mark its ends."""
        return self._loaded("image").token_limit

    def validate_request(self, request: GenerationRequest) -> ResolvedRequest:
        """`request` with the defaults filled in, the family's but for the shares that the negative adapter in use was
        trained for; raises InputError for anything that cannot be generated."""
        resolve_request(request, self.family)  # before loading: a typo should not cost seconds
        sampler = self._loaded(request.modality)
        resolved = resolve_request(request, self.family.at_shares(self.shares(request.modality)))
        sampler.check(resolved)
        return resolved

    def shares(self, modality: str = "image") -> dict[str, float]:
        """ "alpha" and "beta" of the negative branch by default, as far as the adapter in use says other than the
        family."""
        negative = self.adapters(modality).get("negative")
        return {} if negative is None else negative.trained_for

    def generate(self, request: GenerationRequest, on_step: OnStep | None = None) -> Comparison:
        """Every variant of `request` from the same noise. `on_step` is called after each denoising step."""
        return self.generate_batch([request], on_step)[0]

    def generate_batch(self, requests: Sequence[GenerationRequest], on_step: OnStep | None = None) -> list[Comparison]:
        """One comparison for each request, all in one call of the pipeline.

        Every sample starts from the noise of its own request's seed, so a picture does not depend on what else is in
        the batch (beyond rounding). The requests must agree in SHARED_SETTINGS; raises InputError when they do not.
        """
        if not requests:
            return []
        resolved = [self.validate_request(request) for request in requests]
        for name in SHARED_SETTINGS:
            values = {getattr(request, name): None for request in resolved}
            if len(values) > 1:
                raise InputError(
                    f"The requests of one batch differ in {name} ({', '.join(map(str, values))}); "
                    "give them one value or generate them apart."
                )
        with self._lock:
            started_s = time.perf_counter()
            modality = resolved[0].modality
            adapters = self.adapters(modality)
            sampler = self._loaded(modality)
            sampled = iter(sampler.sample(resolved, on_step))
            samples = [
                tuple(_sample(name, *next(sampled), request.fps) for name in request.variants) for request in resolved
            ]
            execution = sampler.execution
            elapsed_s = (time.perf_counter() - started_s) / len(resolved)
        versions = library_versions()
        return [
            Comparison(self.family.name, request, ours, adapters, versions, execution, elapsed_s)
            for request, ours in zip(resolved, samples, strict=True)
        ]


def _sample(variant: str, frames: Sequence[Image.Image], latents: np.ndarray, fps: float | None) -> Sample:
    media, media_type = (
        (png_bytes(frames[0]), PNG_MEDIA_TYPE) if fps is None else (mp4_bytes(frames, fps), MP4_MEDIA_TYPE)
    )
    return Sample(variant, media, media_type, sha256_hex(media), latents)


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that have a say in the pixels."""
    return {"python": python_version(), **{name: metadata.version(name) for name in LIBRARIES}}
