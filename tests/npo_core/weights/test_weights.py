from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from npo_core.catalog import adapter_files
from npo_core.catalog.adapter_files import adapter_file
from npo_core.errors import InputError
from npo_core.weights import LowRankLayer, LowRankWeights, fit, load_adapter, peft_adapter, save_adapter
from tests.tiny import tiny_pipeline, tiny_weights

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def assert_equal(actual: LowRankWeights, expected: LowRankWeights) -> None:
    assert actual.layers.keys() == expected.layers.keys()
    for name, layer in actual.layers.items():
        assert torch.equal(layer.a, expected.layers[name].a)
        assert torch.equal(layer.b, expected.layers[name].b)
        assert layer.scale == pytest.approx(expected.layers[name].scale)


def write(path: Path, tensors: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    """A safetensors file with `config` in its header, as diffusers keeps it."""
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(config)} if config else None)
    return path


def pair(rank: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rank, 32, generator=generator), torch.randn(32, rank, generator=generator)


def test_a_saved_adapter_is_read_back_as_it_was(tmp_path: Path) -> None:
    few = tiny_weights(seed=1, rank=2, scale=0.5)
    many = tiny_weights(seed=2, rank=5, scale=3.0)
    mixed = LowRankWeights({**few.layers, LAYER: many.layers[LAYER]})
    assert_equal(load_adapter(save_adapter(mixed, tmp_path / "new" / "folder")), mixed)
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["pytorch_lora_weights.safetensors"]


def test_the_stock_pipeline_runs_a_saved_adapter_at_the_same_scales(tmp_path: Path) -> None:
    few, many = tiny_weights(seed=1, rank=2, scale=0.5), tiny_weights(seed=2, rank=5, scale=3.0)
    mixed = LowRankWeights({**few.layers, LAYER: many.layers[LAYER]})
    save_adapter(mixed, tmp_path)
    pipeline: Any = tiny_pipeline()
    pipeline.load_lora_weights(tmp_path, adapter_name="stock")
    assert_equal(peft_adapter(pipeline.unet, "stock"), mixed)


def test_what_diffusers_itself_saved_from_a_peft_adapter_is_read(tmp_path: Path) -> None:
    pipeline: Any = tiny_pipeline()
    config = LoraConfig(r=4, lora_alpha=6, use_rslora=True, init_lora_weights=False, target_modules=["to_q", "conv1"])
    pipeline.unet.add_adapter(config)
    injected = peft_adapter(pipeline.unet)
    assert {layer.scale for layer in injected.layers.values()} == {3.0}  # 6 / sqrt(4)
    pipeline.unet.save_lora_adapter(tmp_path / "unet only")
    assert_equal(load_adapter(tmp_path / "unet only"), injected)


def test_the_peft_layout_takes_its_scale_from_the_config_beside_it(tmp_path: Path) -> None:
    a, b = pair()
    prefix = f"base_model.model.{LAYER}"
    save_file({f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    assert_equal(load_adapter(tmp_path), LowRankWeights({LAYER: LowRankLayer(a, b, 2.0)}))


def test_alpha_tensors_and_down_up_names_are_read(tmp_path: Path) -> None:
    a, b = pair()
    tensors = {
        f"unet.{LAYER}.lora.down.weight": a,
        f"unet.{LAYER}.lora.up.weight": b,
        f"unet.{LAYER}.alpha": torch.tensor(1.0),
    }
    path = write(tmp_path / "lora.safetensors", tensors)
    assert_equal(load_adapter(path), LowRankWeights({LAYER: LowRankLayer(a, b, 0.25)}))


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        (None, 1.0),
        ({"unet.r": 4, "unet.lora_alpha": 8}, 2.0),
        ({"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": True}, 4.0),
        ({"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}}, 0.5),
    ],
)
def test_the_scale_follows_the_config_in_the_header(
    tmp_path: Path, config: dict[str, Any] | None, scale: float
) -> None:
    a, b = pair()
    tensors = {f"unet.{LAYER}.lora_A.weight": a, f"unet.{LAYER}.lora_B.weight": b}
    assert load_adapter(write(tmp_path / "lora.safetensors", tensors, config)).layers[LAYER].scale == scale


def test_half_precision_files_are_read_in_float32_and_saved_as_given(tmp_path: Path) -> None:
    half = tiny_weights(seed=1).to(dtype=torch.float16)
    file = save_adapter(half, tmp_path)
    with safe_open(file, framework="pt") as opened:
        assert {opened.get_tensor(key).dtype for key in opened.keys()} == {torch.float16}  # noqa: SIM118
    assert_equal(load_adapter(file), half.to(dtype=torch.float32))


def test_a_file_that_is_not_a_whole_lora_is_refused_in_one_sentence(tmp_path: Path) -> None:
    a, b = pair()
    down, up = f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"
    bad: dict[str, Any] = {
        "cannot be read as weights": b"not safetensors",
        "holds no LoRA layers and no UNet": {},
        f"A or B is missing for {LAYER}": {down: a},
        f"also holds unet.{LAYER}.weight": {down: a, up: b, f"unet.{LAYER}.weight": a.clone()},
        "which do not share a rank": {down: a, up: b[:, :3].contiguous()},
    }
    for number, (sentence, content) in enumerate(bad.items()):
        path = tmp_path / f"{number}.safetensors"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path)
        with pytest.raises(InputError) as raised:
            load_adapter(path)
        assert sentence in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    file = save_adapter(tiny_weights(seed=1), tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_adapter(file)


def test_an_adapter_of_another_model_is_refused_naming_what_does_not_fit() -> None:
    unet: Any = tiny_pipeline().unet
    a, b = pair()
    fits = LowRankLayer(a, b, 1.0)
    fit(LowRankWeights({LAYER: fits}), unet, "it")
    with pytest.raises(
        InputError, match=r"^it does not fit this model: other.to_q and 1 more of its 3 layers are not in the model"
    ):
        fit(LowRankWeights({LAYER: fits, "other.to_q": fits, "other.to_k": fits}), unet, "it")
    with pytest.raises(InputError, match=r"where \(4, 32\) and \(32, 4\) fit"):
        fit(LowRankWeights({LAYER: LowRankLayer(a[:, :16], b, 1.0)}), unet, "it")
    with pytest.raises(InputError, match="neither a linear layer nor a 2D convolution"):
        fit(LowRankWeights({"conv_norm_out": fits}), unet, "it")


def test_a_missing_or_unsafe_adapter_file_is_named(tmp_path: Path) -> None:
    pickled = tmp_path / "weights.bin"
    pickled.write_bytes(b"")
    cases = {"There is no adapter at": tmp_path / "none", "holds no adapter": tmp_path, "can run code": pickled}
    for sentence, path in cases.items():
        with pytest.raises(InputError, match=sentence):
            load_adapter(path)
    with pytest.raises(InputError, match="Unknown adapter role 'other'; choose from aligned, negative"):
        adapter_file(tmp_path, "other")  # type: ignore[arg-type]


def test_an_adapter_without_an_id_is_named_by_its_content(tmp_path: Path) -> None:
    save_adapter(tiny_weights(seed=1), tmp_path / "one")
    save_adapter(tiny_weights(seed=1), tmp_path / "copy")
    save_adapter(tiny_weights(seed=2), tmp_path / "other")
    one, copy, other = (adapter_file(tmp_path / name, "negative") for name in ("one", "copy", "other"))
    assert one.id == copy.id == f"negative-{one.sha256[:12]}"
    assert one.id != other.id
    assert adapter_file(tmp_path / "one", "negative", id="v2").id == "v2"


def test_an_adapter_is_read_again_for_its_hash_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_adapter(tiny_weights(seed=1), tmp_path)
    read: list[Path] = []
    whole = adapter_files.sha256_file
    monkeypatch.setattr(adapter_files, "sha256_file", lambda path: (read.append(path), whole(path))[1])
    first = adapter_file(file, "negative")
    assert adapter_file(file, "negative") == first
    assert len(read) == 1
    save_adapter(tiny_weights(seed=2), tmp_path)
    assert adapter_file(file, "negative").sha256 != first.sha256
    assert len(read) == 2
