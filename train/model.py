"""The network side of training: the base pipeline, its text embeddings, and the LoRA trained inside its UNet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from npo_core.errors import InputError
from train.config import TARGETS

TEXT_BATCH = 64  # prompts that the text encoder reads at once


def base_name(pipeline: StableDiffusionPipeline) -> str:
    """What a pipeline was loaded from: a Hub id, or a folder's own name (its path says nothing on another machine)."""
    name = str(getattr(pipeline.config, "_name_or_path", "") or "in memory")
    return Path(name).name if Path(name).exists() else name


@contextmanager
def trainable_lora(
    unet: UNet2DConditionModel, rank: int, alpha: int, targets: str, seed: int
) -> Iterator[list[torch.nn.Parameter]]:
    """The float32 weights of a new LoRA inside `unet`, everything else frozen; the UNet is as before afterwards.

    A starts gaussian (from `seed`), B at zero, so that the policy starts as the reference.
    """
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TARGETS[targets]), init_lora_weights="gaussian")
    was_training, needed_gradients = unet.training, [p for p in unet.parameters() if p.requires_grad]
    unet.eval().requires_grad_(False)  # eval: dropout would make policy and reference differ by chance
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet.add_adapter(config)
    try:
        weights = [p for p in unet.parameters() if p.requires_grad]
        for weight in weights:
            weight.data = weight.data.float()
        with disable_input_dtype_casting(unet):  # autocast chooses the precision; PEFT would cast there and back
            yield weights
    finally:
        unet.unload_lora()
        unet.train(was_training)
        for parameter in needed_gradients:
            parameter.requires_grad_(True)


@contextmanager
def sampling_precision(mixed_precision: str) -> Iterator[None]:
    """ "bf16" makes a CPU's products in bfloat16, twice as fast where it has such units; for many pictures to judge,
    not for pictures whose bytes matter. "no", or a GPU (which samples in half precision anyway), changes nothing."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision == "bf16" and not torch.cuda.is_available()):
        yield


class ReferenceSwitch:
    """`with switch.reference():` makes a UNet with a LoRA answer as its base, so that no second UNet is needed."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self._layers = [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Adapters off and no gradients, inside; adapters on and trainable again afterwards."""
        try:
            for layer in self._layers:
                layer.enable_adapters(False)
            with torch.no_grad():
                yield
        finally:
            for layer in self._layers:
                layer.enable_adapters(True)


def fast_attention(device: torch.device, mixed_precision: str) -> AbstractContextManager[None]:
    """The attention kernels to train with.

    On a CPU in bfloat16 the backward pass of the fused kernel takes seven times as long as in float32 (torch 2.13); the
    plain one makes a training step 1.2 times as fast.
    """
    if device.type == "cpu" and mixed_precision != "no":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def encode_prompts(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], device: torch.device
) -> tuple[Tensor, dict[str, int]]:
    """Embeddings (P, tokens, width) of the distinct prompts, and each one's row. Row 0 is the empty prompt."""
    distinct = list(dict.fromkeys(["", *prompts]))
    home = pipeline.text_encoder.device
    pipeline.text_encoder.to(device)
    try:
        with torch.no_grad():
            parts = [
                pipeline.encode_prompt(distinct[start : start + TEXT_BATCH], device, 1, False)[0]
                for start in range(0, len(distinct), TEXT_BATCH)
            ]
    finally:
        pipeline.text_encoder.to(home)
    return torch.cat(parts), {prompt: row for row, prompt in enumerate(distinct)}


class NoiseSchedule:
    """The noise that the base was trained with, and what it was trained to predict there."""

    def __init__(self, pipeline: StableDiffusionPipeline, device: torch.device) -> None:
        self._scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        self._scheduler.alphas_cumprod = self._scheduler.alphas_cumprod.to(device)
        self.timesteps: int = self._scheduler.config.num_train_timesteps
        self._prediction_type: str = self._scheduler.config.prediction_type
        if self._prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise InputError(
                f"The base predicts {self._prediction_type!r}; training knows epsilon, v_prediction and sample."
            )

    def noisy(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(a_t) * clean + sqrt(1 - a_t) * noise, (B, C, H, W)."""
        return self._scheduler.add_noise(clean, noise, timesteps)

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What a perfect network answers to `noisy`: the noise, or v = sqrt(a_t) * noise - sqrt(1 - a_t) * clean.

        v is finite where a_t = 0 too (zero terminal SNR, arXiv 2305.08891), which is why such bases predict it.
        """
        if self._prediction_type == "epsilon":
            return noise
        if self._prediction_type == "v_prediction":
            return self._scheduler.get_velocity(clean, noise, timesteps)
        return clean


def hash_unet(unet: UNet2DConditionModel) -> str:
    """sha256 over the names and values of the UNet's weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(unet.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
