"""The method written out as plainly as possible, to compare with: merged weights and a loop of batch-1 calls."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from npo_core.catalog.families import build_scheduler
from npo_core.variants import Mix
from npo_core.weights import AdapterWeights, FullWeights


def merged(unet: nn.Module, mix: Mix, eta: AdapterWeights, delta: AdapterWeights) -> Any:
    """A copy of `unet` whose weights are theta + mix.aligned * eta + mix.negative * delta."""
    base = unet.state_dict()
    unet = copy.deepcopy(unet)
    for share, weights in ((mix.aligned, eta), (mix.negative, delta)):
        if isinstance(weights, FullWeights):
            for name, tensor in weights.tensors.items():
                unet.state_dict()[name].add_(share * (tensor - base[name]))
            continue
        for name, layer in weights.layers.items():
            weight: Any = unet.get_submodule(name).weight
            product = layer.b.flatten(1) @ layer.a.flatten(1)  # (out, in * kernel)
            weight.data += share * layer.scale * product.view_as(weight)
    return unet


@torch.no_grad()
def sample(
    pipeline: Any,
    conditional_unet: Any,
    unconditional_unet: Any,
    *,
    prompt: str,
    negative_prompt: str,
    seed: int,
    scheduler: str,
    steps: int,
    guidance_scale: float,
    shape: tuple[int, ...] = (4, 8, 8),
) -> Tensor:
    """Final latents of `shape`, (C, H, W) or (C, F, H, W): at every step one call for the prompt, one for the negative
    prompt."""
    noise_schedule = build_scheduler(scheduler, pipeline.scheduler.config)
    noise_schedule.set_timesteps(steps)
    frames = shape[1] if len(shape) == 4 else 1
    embedded = {text: _embed(pipeline, text).repeat(frames, 1, 1) for text in (prompt, negative_prompt)}
    latents = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    latents = latents * noise_schedule.init_noise_sigma
    for timestep in noise_schedule.timesteps:
        scaled = noise_schedule.scale_model_input(latents, timestep)
        conditional = conditional_unet(scaled, timestep, embedded[prompt]).sample
        unconditional = unconditional_unet(scaled, timestep, embedded[negative_prompt]).sample
        prediction = unconditional + guidance_scale * (conditional - unconditional)
        latents = noise_schedule.step(prediction, timestep, latents).prev_sample
    return latents[0]


def _embed(pipeline: Any, text: str) -> Tensor:
    tokens = pipeline.tokenizer(text, padding="max_length", max_length=77, return_tensors="pt")
    return pipeline.text_encoder(tokens.input_ids).last_hidden_state
