"""The network side of training: the base pipeline, its text embeddings, and the LoRA trained inside its UNet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from npo_core.errors import InputError
from npo_core.weights import AdapterWeights, LowRankWeights, fit
from train.engine.config import TARGETS, WITH_MOTION


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
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(TARGETS[targets]),
        exclude_modules=None if targets in WITH_MOTION else r".*\.motion_modules\..*",
        init_lora_weights="gaussian",
    )
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


@contextmanager
def borrowed_weights(module: nn.Module, device: torch.device, mixed_precision: str) -> Iterator[None]:
    """The weights of `module` on `device`; as they were, bit for bit, afterwards.

    On a GPU they are kept in the precision of the products (autocast would cast the frozen weights again in every
    forward pass) and convolutions in channels_last, the layout that its kernels are written for.
    """
    tensors = [*module.parameters(), *module.buffers()]
    originals = [tensor.data for tensor in tensors]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision) if device.type == "cuda" else None
    try:
        for tensor in tensors:
            wanted = dtype if tensor.is_floating_point() else None
            layout = torch.channels_last if device.type == "cuda" and tensor.ndim == 4 else torch.preserve_format
            tensor.data = tensor.data.to(device, wanted or tensor.dtype, memory_format=layout)
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original


@contextmanager
def merged(unet: UNet2DConditionModel, weights: AdapterWeights) -> Iterator[None]:
    """Within this context `unet` is the model that `weights` make of it: its aligned model, say, as the frozen base."""
    fitted: AdapterWeights = fit(weights, unet, "The adapter")
    parameters = dict(unet.named_parameters())
    originals = {name: parameter.data for name, parameter in parameters.items()}
    try:
        if isinstance(fitted, LowRankWeights):
            for name, layer in fitted.layers.items():
                weight = parameters[f"{name}.weight"]
                product = (layer.b.flatten(1) @ layer.a.flatten(1)).view(weight.shape) * layer.scale
                weight.data = weight.data + product.to(weight)
        else:
            for name, tensor in fitted.tensors.items():
                parameters[name].data = tensor.to(parameters[name])
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = originals[name]


class ReferenceSwitch:
    """`with switch.reference():` makes a UNet with a LoRA answer as its base, so that no second UNet is needed."""

    def __init__(self, unet: nn.Module) -> None:
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
