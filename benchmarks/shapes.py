"""The models that are measured: the shipped one, and published shapes with random weights that are made in place."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from npo_core.weights import FullWeights, LowRankLayer, LowRankWeights

SD15 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
MOTION = {"use_motion_mid_block": True, "motion_max_seq_length": 32}  # animatediff-motion-adapter-v1-5-2
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
TINY = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
TINY_VAE = {**VAE, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}


@dataclass(frozen=True)
class Case:
    """A shape and how it is sampled. unet() and vae() make the same weights at every call, on the current device."""

    name: str
    label: str
    unet: Callable[[], Any]
    vae: Callable[[], Any]
    latent_px: int
    text_width: int
    steps: int
    frames: int | None = None
    pooled_width: int | None = None  # of SDXL's second text embedding
    family: str | None = None  # a shipped family, whose own adapters are measured
    rank: int = 8
    checked_steps: int = 4

    def latent_shape(self, unet: Any) -> tuple[int, ...]:
        """Of one sample: (C, H, W) or (C, F, H, W)."""
        frames = () if self.frames is None else (self.frames,)
        return (unet.config.in_channels, *frames, self.latent_px, self.latent_px)


def _unet(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel(**config)
    return unet.eval().requires_grad_(False)


def _motion_unet(config: dict[str, Any], motion: dict[str, Any]) -> Any:
    from diffusers import MotionAdapter, UNetMotionModel

    blocks = config["block_out_channels"]
    layers = config.get("layers_per_block", 2)
    torch.manual_seed(1)
    adapter = MotionAdapter(block_out_channels=blocks, motion_layers_per_block=layers, **motion)
    return UNetMotionModel.from_unet2d(_unet(config), adapter).eval().requires_grad_(False)


def _vae(config: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    vae: Any = AutoencoderKL(**config)
    return vae.eval().requires_grad_(False)


@functools.cache
def _emoji() -> Any:
    from npo_core.catalog.families import get_family
    from npo_core.sampling.pipelines import load_pipeline

    with torch.device("cpu"):  # whatever the caller makes its models on
        return load_pipeline(get_family("emoji"))


def _emoji_part(name: str) -> Any:
    return copy.deepcopy(getattr(_emoji(), name)).eval().requires_grad_(False)


def emoji_case() -> Case:
    unet = _emoji_part("unet")
    return Case(
        name="emoji",
        label="emoji, 128 px",
        unet=lambda: _emoji_part("unet"),
        vae=lambda: _emoji_part("vae"),
        latent_px=unet.config.sample_size,
        text_width=unet.config.cross_attention_dim,
        steps=20,
        family="emoji",
    )


CASES: dict[str, Callable[[], Case]] = {
    "emoji": emoji_case,
    "sd15": lambda: Case("sd15", "SD1.5-shaped, 512 px", lambda: _unet(SD15), lambda: _vae(VAE), 64, 768, 25),
    "sdxl": lambda: Case(
        "sdxl",
        "SDXL-shaped, 1024 px",
        lambda: _unet(SDXL),
        lambda: _vae(VAE),
        128,
        2048,
        25,
        pooled_width=1280,
        checked_steps=2,
    ),
    "animatediff": lambda: Case(
        "animatediff",
        "AnimateDiff-shaped, 16 frames, 512 px",
        lambda: _motion_unet(SD15, MOTION),
        lambda: _vae(VAE),
        64,
        768,
        25,
        frames=16,
        checked_steps=2,
    ),
    # To try the script where there is no GPU.
    "tiny": lambda: Case("tiny", "tiny", lambda: _unet(TINY), lambda: _vae(TINY_VAE), 16, 32, 3),
    "tiny_clip": lambda: Case(
        "tiny_clip",
        "tiny, 4 frames",
        lambda: _motion_unet(TINY, {"motion_num_attention_heads": 2, "motion_norm_num_groups": 8}),
        lambda: _vae(TINY_VAE),
        16,
        32,
        3,
        frames=4,
    ),
}


def random_lora(unet: Any, rank: int, seed: int, strength: float = 0.3) -> LowRankWeights:
    """A LoRA on all attention projections, as the published NPO weights have it, in float32.

    strength: the size of B A relative to the weight's, by the Frobenius norm.
    """
    layers = {}
    generator = torch.Generator(unet.device).manual_seed(seed)
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")) and "motion_modules" not in name:
            out_width, in_width = module.weight.shape
            a = torch.randn(rank, in_width, generator=generator, device=unet.device)
            b = torch.randn(out_width, rank, generator=generator, device=unet.device)
            norm = (rank * out_width * in_width) ** 0.5  # of B A, in expectation
            layers[name] = LowRankLayer(a, b * (strength * module.weight.float().norm().item() / norm), 1.0)
    return LowRankWeights(layers)


def random_fine_tune(unet: Any, seed: int, strength: float = 0.05) -> FullWeights:
    """A full set of weights in which every tensor of the image layers differs from the base's."""
    generator = torch.Generator(unet.device).manual_seed(seed)

    def changed(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=torch.float32)
        size = tensor.float().norm() / tensor.numel() ** 0.5 + 0.01
        return (tensor.float() + strength * size * noise).to(tensor.dtype)

    tensors = unet.state_dict()
    return FullWeights({name: changed(each) for name, each in tensors.items() if "motion_modules" not in name})
