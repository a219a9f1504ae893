"""The network side of training: the base pipeline, its text embeddings, and the LoRA trained inside its UNet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from peft import LoraConfig
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from npo_core.weights import AdapterWeights, FullWeights, fit
from npo_core.weights.full import merged
from train.engine.config import TARGETS, WITH_MOTION


def base_name(pipeline: StableDiffusionPipeline) -> str:
    """What a pipeline was loaded from: a Hub id, or a folder's own name (its path says nothing on another machine)."""
    name = str(getattr(pipeline.config, "_name_or_path", "") or "in memory")
    return Path(name).name if Path(name).exists() else name


@contextmanager
def trainable_lora(
    unet: UNet2DConditionModel, rank: int, alpha: float, targets: str, seed: int
) -> Iterator[list[torch.nn.Parameter]]:
    """The float32 weights of a new LoRA inside `unet`, everything else frozen; the UNet is as before afterwards.

    A starts gaussian (from `seed`), B at zero, so that the policy starts as the reference.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # only ever divided by the rank
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
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision) if device.type == "cuda" else None

    def moved(tensor: Tensor) -> Tensor:
        wanted = dtype if tensor.is_floating_point() else None
        layout = torch.channels_last if device.type == "cuda" and tensor.ndim == 4 else torch.preserve_format
        return tensor.data.to(device, wanted or tensor.dtype, memory_format=layout)

    with holding(tensors, list(map(moved, tensors))):
        yield


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it no weight of `module` asks for a gradient; afterwards those that did do again."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def holding(tensors: Sequence[Tensor], others: Sequence[Tensor] | None) -> Iterator[None]:
    """Within it `tensors` hold what `others` do, where there are some; nothing is copied either way."""
    originals = [tensor.data for tensor in tensors]
    for tensor, other in zip(tensors, originals if others is None else others, strict=True):
        tensor.data = other
    try:
        yield
    finally:
        for tensor, original in zip(tensors, originals, strict=True):
            tensor.data = original


class Exchange:
    """Values that some weights of a network can take for a while: those of another model on the same base."""

    def __init__(self, unet: nn.Module, weights: AdapterWeights, share: float = 1.0) -> None:
        """theta + share * eta, where theta is `unet` as it is now and theta + eta what `weights` make of it."""
        fitted: AdapterWeights = fit(weights, unet, "The adapter")
        whole = fitted if isinstance(fitted, FullWeights) else merged(unet, fitted)
        parameters = dict(unet.named_parameters())
        self._parameters = [parameters[name] for name in whole.tensors]
        mine = [parameter.data for parameter in self._parameters]
        tuned = [tensor.to(before) for tensor, before in zip(whole.tensors.values(), mine, strict=True)]
        self._others = tuned if share == 1 else [a + share * (b - a) for a, b in zip(mine, tuned, strict=True)]

    @contextmanager
    def made(self) -> Iterator[None]:
        """Within it the network is the other model, on the device and in the precision that it has at the time."""
        self._others = [new.to(old.data) for new, old in zip(self._others, self._parameters, strict=True)]
        with holding(self._parameters, self._others):
            yield


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
