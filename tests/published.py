"""The published models, tiny: same Hub ids, classes, file names, subfolders and key formats; a few thousand weights.

`publish(root)` writes every repository that FAMILIES names, with the files around them that nobody should fetch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
)

from tests.tiny import tiny_motion_adapter, tiny_pipeline, tiny_tokenizer

SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
NPO = "wangfuyun/Diffusion-NPO"
WIDTH = 32


def publish(root: Path) -> None:
    """Writes the repositories as root/OWNER/NAME."""
    sd15, sdxl = tiny_sd15(), tiny_sdxl()
    _save(sd15, root / SD15)
    (root / SD15 / "v1-5-pruned.ckpt").write_bytes(b"nobody needs this")
    (root / SD15 / "unet" / "diffusion_pytorch_model.non_ema.safetensors").write_bytes(b"nor this")
    _save(sdxl, root / SDXL)
    _save_unet(changed(sd15.unet, seed=1), root / "mhdang/dpo-sd1.5-text2image-v1/unet")
    _save_unet(changed(sdxl.unet, seed=2), root / "mhdang/dpo-sdxl-text2image-v1/unet")
    _save_lora(sd15.unet, root / NPO / "weights/sd15/sd15_beta500_2kiter.safetensors", seed=3)
    _save_lora(sdxl.unet, root / NPO / "weights/sdxl/sdxl_beta2k_2kiter.safetensors", seed=4)
    _save_lora(sdxl.unet, root / NPO / "weights/sdxl/spo_npo_10ep.safetensors", seed=5)
    spo = root / "SPO-Diffusion-Models"
    _save_lora(sd15.unet, spo / "SPO-SD-v1-5_4k-p_10ep_LoRA/spo-sd-v1-5_4k-p_10ep_lora_diffusers.safetensors", seed=6)
    _save_lora(sdxl.unet, spo / "SPO-SDXL_4k-p_10ep_LoRA/spo_sdxl_10ep_4k-data_lora_diffusers.safetensors", seed=7)
    dreamshaper = tiny_sd15(seed=8)
    dreamshaper.unet = changed(sd15.unet, seed=8)
    _save(dreamshaper, root / "Lykon/DreamShaper")
    juggernaut = tiny_sdxl(seed=9)
    juggernaut.unet = changed(sdxl.unet, seed=9)
    _save(juggernaut, root / "RunDiffusion/Juggernaut-XL-v9", only_half=True)
    vae = tiny_vae(seed=10, force_upcast=False)
    vae.save_pretrained(root / "madebyollin/sdxl-vae-fp16-fix")
    tiny_motion_adapter().save_pretrained(root / "guoyww/animatediff-motion-adapter-v1-5-3")
    shutil.copy(
        root / "madebyollin/sdxl-vae-fp16-fix/diffusion_pytorch_model.safetensors",
        root / "madebyollin/sdxl-vae-fp16-fix/sdxl_vae.safetensors",
    )


def tiny_sd15(seed: int = 0) -> Any:
    """A StableDiffusionPipeline as SD1.5 is published: PNDM, predicting the noise, with a safety checker."""
    plain = tiny_pipeline(seed)
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    components = {name: plain.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet")}
    return StableDiffusionPipeline(
        **components,
        scheduler=scheduler,
        safety_checker=tiny_safety_checker(),
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    )


def tiny_safety_checker(flags: bool = False) -> Any:
    """The published class with random weights; it flags every picture, or none."""
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        projection_dim=16,
        vision_config={**vision, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        text_config={**vision, "vocab_size": 8, "max_position_embeddings": 8, "projection_dim": 16},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(config)
    for weights in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        weights.data.fill_(-2.0 if flags else 2.0)  # cosines are within -1 and 1
    return checker


def tiny_sdxl(seed: int = 0) -> Any:
    """A StableDiffusionXLPipeline as SDXL is published: two text encoders, micro-conditioning, Euler."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = tiny_xl_unet()
        tokenizer = tiny_tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        first = tiny_pipeline(seed).text_encoder
        second = CLIPTextModelWithProjection(config)
    return StableDiffusionXLPipeline(
        vae=tiny_vae(seed, force_upcast=True),
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tiny_tokenizer(),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def tiny_xl_unet() -> UNet2DConditionModel:
    """SDXL's kind: text of two encoders side by side, linear projections, sizes and pooled text added to the time."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )


def tiny_vae(seed: int, force_upcast: bool) -> AutoencoderKL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=64,
            force_upcast=force_upcast,
        )


def changed(unet: Any, seed: int) -> Any:
    """A UNet of the same kind in which every weight is a little different: one that was fine-tuned whole."""
    tuned = type(unet).from_config(unet.config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in unet.state_dict().items()
    }
    tuned.load_state_dict(tensors)
    return tuned


def lora_tensors(unet: Any, seed: int, rank: int = 8) -> dict[str, Tensor]:
    """A random LoRA for the attention of `unet`, in the keys of the published files."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            out, inside = module.weight.shape
            tensors[f"unet.{name}.lora.down.weight"] = torch.randn(rank, inside, generator=generator) / inside**0.5
            tensors[f"unet.{name}.lora.up.weight"] = torch.randn(out, rank, generator=generator) / rank**0.5
    return tensors


def _save_lora(unet: Any, path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(lora_tensors(unet, seed), path)


def _save_unet(unet: Any, folder: Path) -> None:
    unet.save_pretrained(folder)


def _save(pipeline: Any, folder: Path, only_half: bool = False) -> None:
    """In full precision and as the fp16 variant, as most are published, or as the variant alone."""
    if not only_half:
        pipeline.save_pretrained(folder)
    pipeline.save_pretrained(folder, variant="fp16")
    for tokenizer in folder.glob("tokenizer*"):  # the older layout, in which all of them are published
        content = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        (tokenizer / "vocab.json").write_text(json.dumps(content["vocab"]), encoding="utf-8")
        (tokenizer / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        (tokenizer / "tokenizer.json").unlink()
