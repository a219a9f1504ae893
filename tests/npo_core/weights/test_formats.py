"""Every form in which weights are published, read into the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import save_file
from torch import Tensor

from npo_core.catalog.adapter_files import ROLES, adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.sampling.pipelines import load_model
from npo_core.sampling.sampler import Sampler
from npo_core.variants import Mix
from npo_core.weights import FullWeights, LowRankWeights, fit, load_adapter, load_weights, peft_adapter
from npo_core.weights.fitting import original_names
from npo_core.weights.full import extract_low_rank
from tests.tiny import tiny_pipeline, tiny_unet_shapes, tiny_weights

SD15: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def at_real_size(config: dict[str, Any]) -> UNet2DConditionModel:
    """The published architecture without its memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def lora(scale: float = 0.5) -> LowRankWeights:
    return tiny_weights(seed=1, rank=4, scale=scale)


def as_diffusers(weights: LowRankWeights) -> dict[str, Tensor]:
    return {
        f"unet.{name}.{part}.weight": tensor
        for name, layer in weights.layers.items()
        for part, tensor in (("lora.down", layer.a), ("lora.up", layer.b * layer.scale))
    }


def as_kohya(weights: LowRankWeights) -> dict[str, Tensor]:
    tensors = {}
    for name, layer in weights.layers.items():
        flat = "lora_unet_" + name.replace(".", "_")
        tensors[f"{flat}.lora_down.weight"] = layer.a
        tensors[f"{flat}.lora_up.weight"] = layer.b
        tensors[f"{flat}.alpha"] = torch.tensor(layer.scale * layer.rank)
    return tensors


def as_peft(weights: LowRankWeights, folder: Path) -> Path:
    tensors = {}
    for name, layer in weights.layers.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = layer.a
        tensors[f"base_model.model.{name}.lora_B.weight"] = layer.b
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    scale = next(iter(weights.layers.values())).scale
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4 * scale}))
    return folder


def as_processors(weights: LowRankWeights) -> dict[str, Tensor]:
    """The layout of diffusers before 0.18: by attention processor, attention only."""
    tensors = {}
    for name, layer in weights.layers.items():
        if ".attn" in name:
            attention, projection = name.removesuffix(".0").rsplit(".", 1)
            stem = f"unet.{attention}.processor.{projection}_lora"
            tensors[f"{stem}.down.weight"] = layer.a
            tensors[f"{stem}.up.weight"] = layer.b * layer.scale
    return tensors


def updates(weights: LowRankWeights) -> dict[str, Tensor]:
    """scale * B A by layer: what files that split it differently must agree in."""
    return {
        name: layer.scale * layer.b.flatten(1) @ layer.a.flatten(1) for name, layer in sorted(weights.layers.items())
    }


def assert_same_updates(actual: LowRankWeights, expected: LowRankWeights) -> None:
    torch.testing.assert_close(updates(actual), updates(expected), rtol=1e-6, atol=1e-7)


def test_the_three_formats_and_the_old_one_hold_the_same_update(tmp_path: Path) -> None:
    weights, unet = lora(), tiny_unet_shapes()
    save_file(as_diffusers(weights), tmp_path / "diffusers.safetensors")
    save_file(as_kohya(weights), tmp_path / "kohya.safetensors")
    save_file(as_processors(weights), tmp_path / "processors.safetensors")
    for path in (tmp_path / "diffusers.safetensors", tmp_path / "kohya.safetensors", as_peft(weights, tmp_path / "p")):
        assert_same_updates(fit(load_adapter(path), unet, "it"), weights)
    attention = LowRankWeights({name: layer for name, layer in weights.layers.items() if ".attn" in name})
    assert_same_updates(fit(load_adapter(tmp_path / "processors.safetensors"), unet, "it"), attention)


def test_a_lora_in_each_format_paints_the_same_picture(family: ModelFamily, tmp_path: Path) -> None:
    weights = lora()
    save_file(as_diffusers(weights), tmp_path / "diffusers.safetensors")
    save_file(as_kohya(weights), tmp_path / "kohya.safetensors")
    painted = []
    for path in (tmp_path / "diffusers.safetensors", tmp_path / "kohya.safetensors", as_peft(weights, tmp_path / "p")):
        sampler = Sampler(load_model(family, "cpu"))
        for role in ROLES:
            sampler.set_adapter(role, sampler.read_adapter(adapter_file(path, role)))
        with torch.no_grad(), sampler.unet.rows([Mix(1, 0), Mix(1, 1)]):
            noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            text = torch.randn(2, 77, 32, generator=torch.Generator().manual_seed(1))
            predicted = sampler.unet(noise, 500, text).sample
        made = Generator(family, aligned=adapter_file(path, "aligned"), negative=adapter_file(path, "negative"))
        images = [open_image(sample.media) for sample in made.generate(GenerationRequest("a cat", seed=1)).samples]
        painted.append((predicted, np.stack([np.asarray(image, dtype=np.int16) for image in images])))
    for predicted, pixels in painted[1:]:
        torch.testing.assert_close(predicted, painted[0][0], rtol=0, atol=1e-5)
        assert abs(pixels - painted[0][1]).max() <= 1, "rounding alone"


def test_a_kohya_file_means_here_what_it_means_to_diffusers(tmp_path: Path) -> None:
    attention = {name: layer for name, layer in lora().layers.items() if ".attn" in name}
    file = tmp_path / "kohya.safetensors"
    save_file(as_kohya(LowRankWeights(attention)), file)
    pipeline: Any = tiny_pipeline()
    pipeline.load_lora_weights(file, adapter_name="theirs")
    assert_same_updates(fit(load_adapter(file), tiny_unet_shapes(), "it"), peft_adapter(pipeline.unet, "theirs"))


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["sd15", "sdxl"])
def test_original_names_are_those_that_diffusers_converts(config: dict[str, Any]) -> None:
    unet = at_real_size(config)
    own = unet.state_dict()
    original = {name: original for original, name in original_names(unet)}
    checkpoint = {}
    for number, key in enumerate(own):
        layer, _, kind = key.rpartition(".")
        checkpoint[f"model.diffusion_model.{original[layer]}.{kind}"] = torch.tensor(number)
    theirs = convert_ldm_unet_checkpoint(dict(checkpoint), dict(unet.config))
    assert {key: int(value) for key, value in theirs.items()} == {key: number for number, key in enumerate(own)}
    assert len(own) > 600


def test_names_of_published_sdxl_files_are_found(tmp_path: Path) -> None:
    unet = at_real_size(SDXL)
    published = {
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q": (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
        ),
        "input_blocks_8_1_transformer_blocks_9_attn2_to_k": (
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k"
        ),
        "middle_block_1_transformer_blocks_3_ff_net_0_proj": (
            "mid_block.attentions.0.transformer_blocks.3.ff.net.0.proj"
        ),
        "output_blocks_5_1_proj_in": "up_blocks.1.attentions.2.proj_in",
        "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
        "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
        "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_out_0": (
            "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
        ),
    }
    tensors = {}
    for flat, name in published.items():
        weight = unet.get_submodule(name).weight
        ones = [1] * (weight.ndim - 2)
        tensors[f"lora_unet_{flat}.lora_down.weight"] = torch.zeros(2, *weight.shape[1:])
        tensors[f"lora_unet_{flat}.lora_up.weight"] = torch.zeros(weight.shape[0], 2, *ones)
        tensors[f"lora_unet_{flat}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "sdxl.safetensors")
    fitted = fit(load_adapter(tmp_path / "sdxl.safetensors"), unet, "it")
    assert fitted.layers.keys() == set(published.values())
    assert {layer.scale for layer in fitted.layers.values()} == {0.5}


@pytest.mark.parametrize("prefix", ["", "unet.", "module.unet."])
def test_a_full_state_dict_is_read_whatever_stands_before_its_names(tmp_path: Path, prefix: str) -> None:
    unet = tiny_unet_shapes()
    save_file({f"{prefix}{key}": tensor for key, tensor in unet.state_dict().items()}, tmp_path / "full.safetensors")
    weights = fit(load_weights(tmp_path / "full.safetensors"), unet, "it")
    assert isinstance(weights, FullWeights)
    torch.testing.assert_close(weights.tensors, dict(unet.state_dict()))
    with pytest.raises(InputError, match="is a whole UNet where a LoRA is needed"):
        load_adapter(tmp_path / "full.safetensors")


def test_a_unet_folder_and_a_whole_original_checkpoint_hold_the_same_unet(tmp_path: Path) -> None:
    unet = tiny_unet_shapes()
    unet.save_pretrained(tmp_path / "unet")
    original = {name: original for original, name in original_names(unet)}
    checkpoint = {"first_stage_model.decoder.conv_in.weight": torch.zeros(1)}
    for key, tensor in unet.state_dict().items():
        layer, _, kind = key.rpartition(".")
        checkpoint[f"model.diffusion_model.{original[layer]}.{kind}"] = tensor
    save_file(checkpoint, tmp_path / "checkpoint.safetensors")
    for path in (tmp_path / "unet", tmp_path / "checkpoint.safetensors"):
        weights = fit(load_weights(path), unet, "it")
        assert isinstance(weights, FullWeights)
        torch.testing.assert_close(weights.tensors, dict(unet.state_dict()))


def test_a_misfit_says_what_is_missing_and_what_it_looks_like(tmp_path: Path) -> None:
    sdxl = at_real_size(SDXL)
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    a, b = torch.zeros(4, 768), torch.zeros(640, 4)
    save_file({f"unet.{layer}.lora_A.weight": a, f"unet.{layer}.lora_B.weight": b}, tmp_path / "sd15.safetensors")
    with pytest.raises(InputError, match=r"looks like one for Stable Diffusion 1\.x, and this is SDXL"):
        fit(load_adapter(tmp_path / "sd15.safetensors"), sdxl, "it")
    flux = {f"transformer.transformer_blocks.0.attn.to_q.lora_{half}.weight": torch.zeros(4, 4) for half in "AB"}
    save_file(flux, tmp_path / "flux.safetensors")
    with pytest.raises(InputError, match="looks like one for a diffusion transformer"):
        fit(load_adapter(tmp_path / "flux.safetensors"), sdxl, "it")
    unet = tiny_unet_shapes()
    tensors = dict(unet.state_dict())
    del tensors["conv_out.bias"]
    tensors["conv_out.weight"] = torch.zeros(1)
    tensors["strange.weight"] = tensors["other.weight"] = torch.zeros(1)
    with pytest.raises(InputError) as raised:
        fit(FullWeights(tensors), unet, "it")
    assert "conv_out.bias is missing, strange.weight and 1 more are too many, conv_out.weight is of another shape" in (
        str(raised.value)
    )


def test_other_methods_are_named_and_text_encoder_layers_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = as_kohya(lora())
    save_file({**tensors, "lora_unet_x.dora_scale": torch.zeros(1)}, tmp_path / "dora.safetensors")
    with pytest.raises(InputError, match="DoRA is another method"):
        load_adapter(tmp_path / "dora.safetensors")
    text = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(8, 4),
    }
    save_file({**tensors, **text}, tmp_path / "with_text.safetensors")
    assert_same_updates(fit(load_adapter(tmp_path / "with_text.safetensors"), tiny_unet_shapes(), "it"), lora())
    assert "also changes the text encoder (1 layers)" in caplog.text


def test_the_low_rank_offset_of_a_full_model_is_found_and_what_it_misses_is_reported() -> None:
    unet = tiny_unet_shapes()
    base = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    tuned = dict(base)
    expected = lora()
    for name, update in updates(expected).items():
        tuned[f"{name}.weight"] = base[f"{name}.weight"] + update.view_as(base[f"{name}.weight"])
    whole = extract_low_rank(base, FullWeights(tuned), unet, rank=4)
    torch.testing.assert_close(updates(whole.weights), updates(expected), rtol=1e-4, atol=1e-5)
    assert whole.relative_error < 1e-5
    part = extract_low_rank(base, FullWeights(tuned), unet, rank=2)
    left, total = 0.0, 0.0
    for update in updates(expected).values():
        singular = torch.linalg.svdvals(update)
        left, total = left + singular[2:].square().sum().item(), total + singular.square().sum().item()
    assert part.relative_error == pytest.approx((left / total) ** 0.5, rel=1e-4), "Eckart-Young"
    tuned["conv_norm_out.bias"] = base["conv_norm_out.bias"] + 1
    assert extract_low_rank(base, FullWeights(tuned), unet, rank=4).left_out > 0
