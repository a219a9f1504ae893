"""A tiny but real Stable Diffusion pipeline with tiny LoRAs and a tiny motion adapter, in the layout of diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from npo_core.catalog.families import ModelFamily, VideoSettings
from npo_core.generator import AdapterFile, Role, adapter_file
from npo_core.weights import FullWeights, LowRankLayer, LowRankWeights, save_adapter

GUIDE = {
    "concepts": {"apple": "food", "pizza": "food", "cat": "animals", "cat face": "animals", "rocket": "travel"},
    "styles": ["3d", "cartoon", "flat"],
    "backgrounds": ["white", "blue", "green"],
    "colours": ["red", "green", "blue"],
    "suggestions": ["a red apple, 3d style", "a cat face, flat style, blue background"],
    "motions": ["bouncing", "sliding left"],
}


def tiny_family(tmp_path: Path, name: str = "tiny") -> ModelFamily:
    """A family of 64x64 px pictures and clips of 4 frames in `tmp_path`/NAME: v-prediction, zero terminal SNR, random
    weights, two LoRAs."""
    folder = tmp_path / name
    tiny_pipeline().save_pretrained(folder)
    tiny_motion_adapter().save_pretrained(folder / "motion")
    tiny_adapter(folder / "aligned", "aligned", seed=1)
    tiny_adapter(folder / "negative", "negative", seed=2)
    (folder / "vocabulary.json").write_text(json.dumps(GUIDE), encoding="utf-8")
    return tiny_settings(folder)


def tiny_settings(folder: Path) -> ModelFamily:
    """The family whose weights `tiny_family` wrote to `folder`."""
    return ModelFamily(
        name=folder.name,
        label="Tiny",
        description="Random weights, for tests.",
        base=str(folder),
        aligned=str(folder / "aligned"),
        negative=str(folder / "negative"),
        width_px=64,
        height_px=64,
        steps=3,
        guidance_scale=4.0,
        alpha=1.0,
        beta=1.0,
        scheduler="ddim",
        guide=str(folder / "vocabulary.json"),
        video=VideoSettings(
            motion_adapter=str(folder / "motion"),
            steps=2,
            guidance_scale=3.0,
            scheduler="ddim",
            frames=4,
            max_frames=12,
        ),
    )


def tiny_motion_adapter(seed: int = 3) -> MotionAdapter:
    """A motion adapter for `tiny_unet`: random, so that the frames of a clip differ and depend on each other."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MotionAdapter(
            block_out_channels=(16, 32),
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=8,
            use_motion_mid_block=False,
        )


def tiny_pipeline(seed: int = 0) -> Any:
    """A StableDiffusionPipeline of about 100,000 random weights: 64 px pictures, (4, 8, 8) latents."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = tiny_unet()
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
        )
        tokenizer = tiny_tokenizer()
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=tiny_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tiny_unet() -> UNet2DConditionModel:
    """Two levels, attention at the finer one; the weights come from the current random state."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=4,
    )


def tiny_scheduler(prediction_type: str = "v_prediction") -> Any:
    """DDIM with zero terminal SNR, as the emoji family has it."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        steps_offset=1,
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """One token a character, 77 at most with the two that mark the ends."""
    characters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *characters, *(character + "</w>" for character in characters)]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=77)


def tiny_weights(seed: int, rank: int = 4, scale: float = 1.0) -> LowRankWeights:
    """A random LoRA for `tiny_unet`, strong enough to show: attention projections and one 3x3 convolution."""
    unet = tiny_unet_shapes()
    random = torch.Generator().manual_seed(seed)
    layers = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")) or name == "mid_block.resnets.0.conv1":
            weight = module.weight  # (out, in) or (out, in, kh, kw)
            a = torch.randn(rank, *weight.shape[1:], generator=random) / weight[0].numel() ** 0.5
            b = torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2), generator=random) / rank**0.5
            layers[name] = LowRankLayer(a, b, scale)
    return LowRankWeights(layers)


def tiny_full_weights(unet: Any, seed: int, share: float = 0.3) -> FullWeights:
    """A fine-tuned `unet`: every layer differs from it but the input convolution, norms and biases included."""
    random = torch.Generator().manual_seed(seed)
    return FullWeights(
        {
            name: tensor
            if name.startswith("conv_in.")
            else tensor + share * torch.randn(tensor.shape, generator=random) * tensor.abs().mean().clamp(min=0.1)
            for name, tensor in unet.state_dict().items()
        }
    )


def tiny_unet_shapes() -> Any:
    """`tiny_unet` without touching the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        return tiny_unet()


def tiny_adapter(path: Path, role: Role, seed: int) -> AdapterFile:
    """Saves a random LoRA for the tiny family in the folder `path` and names it."""
    save_adapter(tiny_weights(seed), path)
    return adapter_file(path, role)
