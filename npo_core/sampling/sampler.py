"""A family's stock diffusers pipeline with a RoutedUNet inside: checked requests in, pictures and latents out."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from npo_core.catalog.adapter_files import ROLES, AdapterFile, Role, content_sha256
from npo_core.catalog.families import build_scheduler
from npo_core.errors import FlaggedError, InputError
from npo_core.progress import OnStep, StepProgress
from npo_core.requests import GenerationRequest, ResolvedRequest, resolve_request
from npo_core.routing.batch import Recording
from npo_core.routing.execution import ROUTINGS, STREAMED_SETS
from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.sampling.pipelines import LoadedModel, free_bytes, free_unused
from npo_core.sampling.placement import RESIDENT, decoded_at_once
from npo_core.variants import Mix, get_variant
from npo_core.weights import AdapterWeights, fit, load_weights

logger = logging.getLogger(__name__)


class Sampler:
    """The loaded weights of a family. Not thread-safe, except for `check`; `Generator` holds the lock."""

    def __init__(self, model: LoadedModel, routing: str | None = None) -> None:
        """Puts a RoutedUNet without adapters into the pipeline of `model`; adapters are set afterwards.

        routing: forces one of `execution.ROUTINGS`.
        """
        self.model, self.routing = model, routing
        self.family, self.device, self.dtype = model.family, model.device, model.dtype
        self.pipeline = model.pipeline
        self.pipeline.set_progress_bar_config(disable=True)
        self.scheduler_config = self.pipeline.scheduler.config
        if self.device.type == "cpu":  # 5% less work in the UNet and 12% in the VAE; see benchmarks/README.md
            for part in (self.pipeline.unet, self.pipeline.vae):
                part.to(memory_format=torch.channels_last)
        self.unet = RoutedUNet(self.pipeline.unet.eval().requires_grad_(False), routing)
        self.pipeline.unet = self.unet
        self.roles: set[Role] = set()
        self._to_record: Recording | None = None

    @property
    def token_limit(self) -> int:
        """How many tokens a prompt may have, without the two that mark its ends."""
        return self.pipeline.tokenizer.model_max_length - 2

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` has, without the two that mark its ends."""
        with self.model.tokenizer_lock:
            return len(self.pipeline.tokenizer(text, truncation=False, verbose=False).input_ids) - 2

    def read_adapter(self, adapter: AdapterFile) -> AdapterWeights:
        """The weights in `adapter`, checked against this model; raises InputError and changes nothing."""
        weights = fit(load_weights(adapter.path), self.unet.unet, str(adapter.path))
        if content_sha256(adapter.path) != adapter.sha256:
            raise InputError(f"{adapter.path} changed since it was named {adapter.id}; register it as a new version.")
        return weights

    def set_adapter(self, role: Role, weights: AdapterWeights) -> None:
        """Takes weights that `read_adapter` gave."""
        before = self.unet.routing
        self.unet.set_adapter(role, weights)
        self.roles.add(role)
        routing = self.unet.routing
        if len(self.roles) == 1 or routing != before:
            logger.info("Routing %s (%s): %s.", routing.name, routing.reason, ROUTINGS[routing.name])

    @property
    def execution(self) -> dict[str, str]:
        """How pictures are made now, beyond what the request says: it has a say in rounding and in time."""
        return {"routing": self.unet.routing.name, "forward": self.unet.ran}

    def warm_up(self) -> None:
        """Makes a comparison at the family's own settings, so that the first visitor does not wait for what is done
        once: kernels are chosen, and on a GPU the UNet is compiled and recorded as a CUDA graph, which takes minutes.

        What cannot be recorded is logged and runs as it would have without.
        """
        started_s = time.perf_counter()
        request = replace(resolve_request(GenerationRequest("warm up"), self.family), steps=1)
        variants = [name for name in request.variants if self._has_weights(name, request)]
        copies = [request] * len(variants)
        pairs = [get_variant(name).mixes(request.alpha, request.beta) for name in variants]
        for recording in self._recordings():
            self._to_record = recording
            try:
                self.decode(self.denoise(copies, pairs))
                break
            except Exception as error:  # compilers and drivers fail in many ways, none of which may stop the app
                if recording is None:
                    raise
                logger.warning("No %s: %s", recording, str(error).partition("\n")[0])
                free_unused(self.device)
            finally:
                self._to_record = None
        logger.info("Warmed up in %.1f s, forward %s.", time.perf_counter() - started_s, self.unet.ran)

    def _has_weights(self, variant: str, request: ResolvedRequest) -> bool:
        mixes = get_variant(variant).mixes(request.alpha, request.beta)
        return all(role in self.roles for role in ROLES for mix in mixes if getattr(mix, role))

    def _recordings(self) -> tuple[Recording | None, ...]:
        """What to try in a warm-up, the best first. What comes from host memory while it is used is not recorded."""
        stays = self.model.placement.name == RESIDENT and self.unet.routing.name != STREAMED_SETS
        return ("compiled_cuda_graph", "cuda_graph", None) if self.device.type == "cuda" and stays else (None,)

    def check(self, request: ResolvedRequest) -> None:
        """Raises InputError for what only the loaded model can tell: prompts too long, adapters missing."""
        for what, text in (("prompt", request.prompt), ("negative prompt", request.negative_prompt)):
            tokens = self.count_tokens(text)
            if tokens > self.token_limit:
                raise InputError(
                    f"The {what} has {tokens} tokens and {self.family.label} reads {self.token_limit}; shorten it."
                )
        mixes = guided_rows(_mix_pairs([request]), request.guidance_scale)
        for role in ("aligned", "negative"):
            if role not in self.roles and any(getattr(mix, role) for mix in mixes):
                raise InputError(
                    f"The variants {', '.join(request.variants)} need an adapter of role {role!r} and none is loaded "
                    f"for {self.family.label}; give one or leave those variants out."
                )

    def sample(
        self, requests: Sequence[ResolvedRequest], on_step: OnStep | None = None
    ) -> list[tuple[list[Image.Image], np.ndarray]]:
        """(frames, final latents float16) for every variant of every request, in that order.

        A picture is one frame with latents (C, H, W), a clip has (F, C, H, W).
        The requests were checked and agree in `generator.SHARED_SETTINGS`. Raises InputError when memory runs out, and
        FlaggedError when the family's safety checker flags anything.
        """
        copies = [request for request in requests for _ in request.variants]  # one for each sample
        started_s = time.perf_counter()
        try:
            latents = self.denoise(copies, _mix_pairs(requests), on_step)
            stored = latents.to("cpu", torch.float16).numpy()
            denoised_s = time.perf_counter()
            made = self.decode(latents)
            logger.info(
                "Denoised %d samples in %.2f s (routing %s, forward %s), decoded in %.2f s.",
                len(copies),
                denoised_s - started_s,
                self.unet.routing.name,
                self.unet.ran,
                time.perf_counter() - denoised_s,
            )
            self._refuse_flagged(made)
            return list(zip(made, stored, strict=True))
        except torch.OutOfMemoryError:
            pass  # handled outside, or the exception would keep alive what filled the memory
        free_unused(self.device)
        shared = copies[0]
        raise InputError(
            f"{len(copies)} pictures of {shared.width_px}x{shared.height_px} pixels do not fit into this device's "
            "memory beside the model; ask for fewer variants or a smaller size, or close what else uses it."
        )

    def denoise(
        self,
        copies: Sequence[ResolvedRequest],
        pairs: Sequence[tuple[Mix, Mix]],
        on_step: OnStep | None = None,
        **more: Any,
    ) -> Tensor:
        """The final latents (samples, C, H, W) of one sample for each request and (conditional, unconditional) pair.

        more: arguments of the pipeline that no request has, such as guidance_rescale.
        """
        shared = copies[0]
        arguments = {
            **self._embed(copies),
            **self._noise(copies),
            "num_inference_steps": shared.steps,
            "guidance_scale": shared.guidance_scale,
            "width": shared.width_px,
            "height": shared.height_px,
            "callback_on_step_end": None if on_step is None else partial(self._report, on_step),
            **more,
        }
        self.pipeline.scheduler = build_scheduler(shared.scheduler, self.scheduler_config)
        with self.unet.rows(guided_rows(pairs, shared.guidance_scale), self._to_record):
            latents: Tensor = self.pipeline(**arguments, output_type="latent", return_dict=False)[0]
        return latents

    def _noise(self, copies: Sequence[ResolvedRequest]) -> dict[str, Any]:
        """The arguments of the pipeline that make every sample start from the noise of its own request's seed."""
        return {"generator": [torch.Generator("cpu").manual_seed(request.seed) for request in copies]}

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[list[Image.Image]]:
        """The frames of every sample, from latents at UNet scale: (samples, C, H, W), one frame each."""
        vae = self.pipeline.vae
        pixels = latents[0, 0].numel() * self.pipeline.vae_scale_factor**2
        width = max(vae.config.block_out_channels[:2])
        together, vae.use_tiling = decoded_at_once(pixels, width, vae.dtype.itemsize, free_bytes(self.device))
        if self.device.type == "cpu":
            together = 1  # else a picture's last bits depend on its place beside others; see benchmarks/README.md
        try:
            return self._decoded(latents, together)
        except torch.OutOfMemoryError:
            if together == 1:
                raise
        free_unused(self.device)  # the arithmetic is rough, and what is free may be in pieces
        return self._decoded(latents, 1)

    def _decoded(self, latents: Tensor, together: int) -> list[list[Image.Image]]:
        vae, images = self.pipeline.vae, []
        for part in latents.split(together):
            decoded = vae.decode(part.to(vae.dtype) / vae.config.scaling_factor).sample
            images += self.pipeline.image_processor.postprocess(decoded, output_type="pil")
        return [[image] for image in images]

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """One picture for every sample in the middle of denoising, black where the safety checker flags it."""
        images = [frames[0] for frames in self.decode(latents)]
        flags = self.flagged(images)
        return [Image.new("RGB", image.size) if flag else image for image, flag in zip(images, flags, strict=True)]

    @torch.no_grad()
    def flagged(self, images: Sequence[Image.Image]) -> list[bool]:
        """Which of `images` the family's safety checker flags; none where it has no checker or it was switched off."""
        checker = getattr(self.pipeline, "safety_checker", None)
        if checker is None:
            return [False] * len(images)
        seen = self.pipeline.feature_extractor(list(images), return_tensors="pt").pixel_values
        blank = np.zeros((len(images), 1, 1, 3))  # the checker blackens what it is given; the flags are what we want
        _, flags = checker(images=blank, clip_input=seen.to(self.device, self.dtype))
        return [bool(flag) for flag in flags]

    def _refuse_flagged(self, made: Sequence[Sequence[Image.Image]]) -> None:
        flags = [any(self.flagged(frames)) for frames in made]
        if any(flags):
            raise FlaggedError(
                f"The safety checker of {self.family.label} flagged {sum(flags)} of {len(flags)} results, so none is "
                "shown or kept; try other words or another seed."
            )

    @torch.no_grad()
    def _embed(self, copies: Sequence[ResolvedRequest]) -> dict[str, Tensor]:
        """The pipeline's arguments for prompts and negative prompts; each distinct text is read once.

        prompt_embeds and negative_prompt_embeds are (samples, tokens, width); SDXL adds pooled ones (samples, width).
        An empty negative prompt is none at all, for which SDXL was trained with zeros.
        """
        texts = list(dict.fromkeys(text for each in copies for text in (each.prompt, each.negative_prompt)))
        with self.model.tokenizer_lock:
            encoded = self.pipeline.encode_prompt(
                texts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        embeddings = {"prompt_embeds": encoded[0]}
        if len(encoded) == 4:
            embeddings["pooled_prompt_embeds"] = encoded[2]
        place = {text: number for number, text in enumerate(texts)}
        prompts = [place[each.prompt] for each in copies]
        negatives = [place[each.negative_prompt] for each in copies]
        zeros = self.pipeline.config.get("force_zeros_for_empty_prompt", False)
        arguments = {}
        for name, embedded in embeddings.items():
            negative = embedded.clone()
            if zeros and "" in place:
                negative[place[""]] = 0
            arguments[name], arguments[f"negative_{name}"] = embedded[prompts], negative[negatives]
        return arguments

    def _report(
        self, on_step: OnStep, pipeline: Any, index: int, timestep: Any, state: dict[str, Any]
    ) -> dict[str, Any]:
        """Turns the pipeline's callback into a StepProgress."""
        on_step(StepProgress(index + 1, pipeline.num_timesteps, partial(self.preview, state["latents"])))
        return {}


def _mix_pairs(requests: Sequence[ResolvedRequest]) -> list[tuple[Mix, Mix]]:
    """The (conditional, unconditional) Mixes of every sample."""
    return [get_variant(name).mixes(request.alpha, request.beta) for request in requests for name in request.variants]
