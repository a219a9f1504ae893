"""Weights as other people's tools write them: the same update under every name, or a refusal that names the method."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from npo_core.catalog.adapter_files import adapter_file, content_sha256
from npo_core.errors import InputError
from npo_core.weights import FullWeights, LowRankLayer, LowRankWeights, fit, load_adapter, load_weights
from npo_core.weights.__main__ import main
from tests.npo_core.weights.test_formats import as_diffusers, as_kohya, as_peft, assert_same_updates, lora
from tests.tiny import tiny_unet_shapes

Tensors = dict[str, Tensor]
LAYER = next(iter(lora().layers))
STEM = f"unet.{LAYER}"


def saved(tensors: Tensors, folder: Path, **config: Any) -> Path:
    file = folder / "adapter_model.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
    if config:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    return file


def peft_named(name: str) -> Tensors:
    return {
        f"base_model.model.{layer}.lora_{half}.{name}.weight": tensor
        for layer, part in lora().layers.items()
        for half, tensor in (("A", part.a), ("B", part.b * part.scale))
    }


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {re.sub(old, new, key): tensor for key, tensor in tensors.items()}


def bundle() -> Tensors:
    text = {
        "bundle_emb.my_token.clip_l": torch.zeros(2, 768),
        "bundle_emb.my_token.string_to_param.*": torch.zeros(2, 768),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(4.0),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(4, 8),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.zeros(8, 4),
        "lora_te2_text_projection.alpha": torch.tensor(4.0),
    }
    return {**as_kohya(lora()), **text}


SAME: dict[str, Callable[[], Tensors]] = {
    "peft_named": lambda: peft_named("npo"),
    "peft_numbered": lambda: peft_named("default_0"),
    "compiled": lambda: renamed(as_diffusers(lora()), r"^unet\.", "unet._orig_mod."),
    "compiled_blocks": lambda: renamed(as_diffusers(lora()), r"\.transformer_blocks", "._orig_mod.transformer_blocks"),
    "compiled_kohya": lambda: renamed(as_kohya(lora()), r"^lora_unet_", "lora_unet__orig_mod_"),
    "wrapped": lambda: renamed(as_diffusers(lora()), r"^", "module."),
    "wrapped_inside": lambda: renamed(as_diffusers(lora()), r"^unet\.", "unet.module._orig_mod."),
    "onetrainer_bundle": bundle,
    "whole_number_alpha": lambda: {
        key: tensor if "alpha" not in key else tensor.to(torch.int64) for key, tensor in as_kohya(lora(1.0)).items()
    },
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_update_is_read_under_every_name(name: str, tmp_path: Path) -> None:
    expected = lora(1.0) if name == "whole_number_alpha" else lora()
    assert_same_updates(fit(load_adapter(saved(SAME[name](), tmp_path)), tiny_unet_shapes(), "it"), expected)


def test_layers_of_text_encoders_are_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_adapter(saved(bundle(), tmp_path))
    assert "also changes the text encoder (4 layers)" in caplog.text  # two embeddings, fc1, text_projection


OTHER: dict[str, tuple[str, str]] = {  # part of a key -> what the refusal names
    ".hada_w1_a": ("LoHa", "hada_w1_a"),
    ".lokr_w1": ("LoKr", "lokr_w1"),
    ".lokr_w2_a": ("LoKr", "lokr_w2_a"),
    ".lokr_t2": ("LoKr", "lokr_t2"),
    ".dora_scale": ("DoRA", "dora_scale"),
    ".lora_magnitude_vector.weight": ("DoRA", "lora_magnitude_vector"),
    ".a1.weight": ("GLoRA", "a1"),
    ".b2.weight": ("GLoRA", "b2"),
    ".on_input": ("IA3", "on_input"),
    ".ia3_l": ("IA3", "ia3_l"),
    ".oft_blocks": ("OFT", "oft_blocks"),
    ".oft_diag.weight": ("OFT", "oft_diag"),
    ".lora_mid.weight": ("lora_mid", "lora_mid"),
    ".diff": ("difference of whole weights", r"\.diff"),
    ".diff_b": ("difference of whole weights", r"\.diff_b"),
}


@pytest.mark.parametrize("part", OTHER)
@pytest.mark.parametrize("alone", [True, False])
def test_another_method_is_refused_by_its_name(part: str, alone: bool, tmp_path: Path) -> None:
    method, key = OTHER[part]
    tensors = {} if alone else as_diffusers(lora())
    file = saved({**tensors, f"lora_unet_{LAYER.replace('.', '_')}{part}": torch.ones(4, 4)}, tmp_path)
    with pytest.raises(InputError, match=rf"is not a plain LoRA: it holds \S*{key}.*{method}.* is another method"):
        load_weights(file)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"init_lora_weights": "pissa"}, "trained by PiSSA, which also changes the base's own weights"),
        ({"init_lora_weights": "pissa_niter_16"}, "trained by PiSSA"),
        ({"init_lora_weights": "olora"}, "trained by OLoRA"),
        ({"init_lora_weights": "loftq"}, "trained by LoftQ"),
        ({"use_dora": True}, "by its configuration DoRA is the method"),
        ({"peft_type": "LOKR"}, "by its configuration LOKR is the method"),
        ({"lora_alpha": "much"}, "has the lora_alpha 'much'"),
        ({"lora_alpha": float("nan")}, "has the lora_alpha nan"),
    ],
)
def test_a_configuration_that_makes_it_another_model_is_refused(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = as_peft(lora(), tmp_path / "p")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2} | config))
    with pytest.raises(InputError, match=words):
        load_adapter(folder)


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal", "mica"])
def test_other_beginnings_are_plain_loras(init: Any, tmp_path: Path) -> None:
    folder = as_peft(lora(), tmp_path / "p")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 2, "init_lora_weights": init, "use_dora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    assert_same_updates(fit(load_adapter(folder), tiny_unet_shapes(), "it"), lora())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_a_layer_that_is_not_finite_is_named(value: float, half: str, tmp_path: Path) -> None:
    tensors = renamed(renamed(as_diffusers(lora()), r"lora\.down", "lora_A"), r"lora\.up", "lora_B")
    tensors[f"{STEM}.{half}.weight"] = tensors[f"{STEM}.{half}.weight"].clone()
    tensors[f"{STEM}.{half}.weight"][1, 2] = value
    with pytest.raises(InputError, match=rf"is broken: {re.escape(LAYER)} has numbers that are not finite"):
        load_weights(saved(tensors, tmp_path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e5m2])
def test_a_whole_unet_that_is_not_finite_is_named(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {key: tensor.clone() for key, tensor in tiny_unet_shapes().state_dict().items()}
    tensors["mid_block.resnets.0.conv1.bias"] = torch.full((32,), float("inf")).to(dtype)
    with pytest.raises(InputError, match=r"is broken: mid_block\.resnets\.0\.conv1\.bias has numbers that are not"):
        load_weights(saved(tensors, tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({f"{STEM}.lora.down.weight": torch.ones(4, 16, dtype=torch.int8)}, "as int8, whose scale is not said"),
        ({f"{STEM}.lora.down.weight": torch.ones(0, 16), f"{STEM}.lora.up.weight": torch.ones(16, 0)}, "is damaged"),
        ({f"{STEM}.alpha": torch.ones(2)}, "alpha of .* is not one number"),
        ({f"module.{STEM}.lora.down.weight": torch.ones(4, 16)}, "twice, wrapped and not"),
        (peft_named("other"), r"holds 2 adapters \(\(no name\), other\)"),
    ],
)
def test_what_could_mean_two_things_is_refused(change: Tensors, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_weights(saved({**as_diffusers(lora()), **change}, tmp_path))


def test_one_by_one_convolutions_and_linear_layers_are_read_flat_or_not(tmp_path: Path) -> None:
    unet = tiny_unet_shapes()
    modules = dict(unet.named_modules())
    conv = next(name for name, module in modules.items() if getattr(module, "kernel_size", None) == (1, 1))
    linear = f"{LAYER}"
    out, into = modules[conv].weight.shape[:2]
    a, b = torch.randn(4, into), torch.randn(out, 4)
    plain = lora().layers[linear]
    expected = {
        conv: LowRankLayer(a[:, :, None, None], b[:, :, None, None], 1.0),
        linear: LowRankLayer(plain.a, plain.b, 1.0),
    }
    forms = (
        {conv: (a, b), linear: (plain.a[:, :, None, None], plain.b[:, :, None, None])},
        {conv: (a[:, :, None, None], b), linear: (plain.a, plain.b[:, :, None, None])},
    )
    for number, form in enumerate(forms):
        (tmp_path / str(number)).mkdir()
        tensors = {
            f"unet.{name}.lora_{half}.weight": tensor
            for name, both in form.items()
            for half, tensor in zip("AB", both, strict=True)
        }
        fitted = fit(load_adapter(saved(tensors, tmp_path / str(number))), unet, "it")
        assert {name: tuple(layer.a.shape) for name, layer in fitted.layers.items()} == {
            name: tuple(layer.a.shape) for name, layer in expected.items()
        }
        assert_same_updates(fitted, LowRankWeights(expected))


def test_a_unet_in_shards_is_the_unet_and_its_hash_is_that_of_all(tmp_path: Path) -> None:
    unet = tiny_unet_shapes()
    unet.save_pretrained(tmp_path, max_shard_size="200KB")
    shards = sorted(tmp_path.glob("*-of-*.safetensors"))
    assert len(shards) > 2
    for path in (tmp_path, tmp_path / "diffusion_pytorch_model.safetensors.index.json", shards[1]):
        weights = fit(load_weights(path), unet, "it")
        assert isinstance(weights, FullWeights)
        torch.testing.assert_close(weights.tensors, dict(unet.state_dict()))
    made = adapter_file(tmp_path, "aligned")
    shards[0].write_bytes(shards[0].read_bytes()[:-4] + b"\x00\x01\x02\x03")
    assert content_sha256(made.path) != made.sha256
    assert adapter_file(tmp_path, "aligned").sha256 == content_sha256(made.path)
    shards[1].unlink()
    with pytest.raises(InputError, match=rf"names {shards[1].name}; download what is missing"):
        load_weights(tmp_path)


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    for content in ('{"weight_map": {"a": "../b.safetensors"}}', "{}", "[", '{"weight_map": {}}'):
        index.write_text(content)
        with pytest.raises(InputError, match=r"The index .* (cannot be read|names)"):
            load_weights(tmp_path)


def test_a_lora_of_clips_gives_pictures_what_it_has_for_them(caplog: pytest.LogCaptureFixture) -> None:
    layers = dict(lora().layers)
    extra = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q"
    both = LowRankWeights({**layers, extra: layers[LAYER]})
    assert_same_updates(fit(both, tiny_unet_shapes(), "it"), lora())
    assert "also moves clips (1 layers)" in caplog.text
    with pytest.raises(InputError, match="does not fit this model"):
        fit(LowRankWeights({extra: layers[LAYER]}), tiny_unet_shapes(), "it")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(2)], "holds a list and no tensors by name"),
        (torch.ones(2), "holds a Tensor and no tensors by name"),
        ({0: torch.ones(2)}, "calls a tensor 0, which is no name"),
        ({"epoch": 3}, "holds no tensors"),
    ],
)
def test_a_pickle_that_is_no_state_dict_is_refused(
    content: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "old.bin")
    assert main(["convert", str(tmp_path / "old.bin"), str(tmp_path / "new.safetensors"), "--run-pickle"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "new.safetensors").exists()


def test_a_pickle_with_sparse_tensors_goes_into_a_folder_that_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dense = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    torch.save({"state_dict": {"a": dense.to_sparse(), "b": dense.T, "epoch": 3}}, tmp_path / "old.ckpt")
    target = tmp_path / "made" / "new.safetensors"
    assert main(["convert", str(tmp_path / "old.ckpt"), str(target), "--run-pickle"]) == 0
    assert "2 tensors, 1 entries left out that are no tensors (epoch)" in capsys.readouterr().out
    from safetensors.torch import load_file

    torch.testing.assert_close(load_file(target), {"a": dense, "b": dense.T.contiguous()})
    (tmp_path / "file").touch()
    blocked = str(tmp_path / "file" / "new.safetensors")
    assert main(["convert", str(tmp_path / "old.ckpt"), blocked, "--run-pickle"]) == 2
    assert "cannot be written" in capsys.readouterr().err
