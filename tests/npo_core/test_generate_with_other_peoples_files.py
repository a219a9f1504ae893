"""The command line with adapters, VAEs and folders as people have them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.errors import InputError
from npo_core.generate import main
from npo_core.generator import Generator
from npo_core.weights import LowRankLayer, LowRankWeights, save_adapter
from tests.published import tiny_safety_checker, tiny_sd15
from tests.tiny import tiny_settings, tiny_weights


@pytest.fixture(autouse=True)
def registered(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", family)


def motion_lora(folder: Path) -> Path:
    """A LoRA of one layer that only clips have, strong enough to show."""
    random = torch.Generator().manual_seed(1)
    a, b = torch.randn(4, 16, generator=random), torch.randn(16, 4, generator=random)
    name = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q"
    return save_adapter(LowRankWeights({name: LowRankLayer(a, b, 1.0)}), folder)


def test_an_adapter_of_the_motion_modules_makes_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = motion_lora(tmp_path / "moving")
    command = ["a red apple", "--family", "tiny", "--steps", "2", "--negative", str(file), "--frames", "4"]
    clips = tmp_path / "clips"
    assert main([*command, "--modality", "video", "--out", str(clips)]) == 0
    samples = json.loads((clips / "request.json").read_text())["samples"]
    assert len({sample["media_sha256"] for sample in samples}) == 3
    assert main([*command[:-2], "--out", str(tmp_path / "pictures")]) == 2
    assert "does not fit this model" in capsys.readouterr().err


def test_a_negative_that_is_not_finite_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_weights(2)
    name = list(weights.layers)[1]
    weights.layers[name].a[0, 0] = float("nan")
    file = save_adapter(weights, tmp_path / "nan")
    assert main(["a red apple", "--family", "tiny", "--negative", str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"{name} has numbers that are not finite" in error
    assert error.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_the_safety_checker_can_be_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline: Any = tiny_sd15()
    pipeline.register_modules(safety_checker=tiny_safety_checker(flags=True))
    pipeline.save_pretrained(tmp_path / "flagging")
    family = replace(tiny_settings(tmp_path / "flagging"), aligned=None, negative=None, video=None)
    monkeypatch.setitem(FAMILIES, "flagging", family)
    command = ["a cat", "--family", "flagging", "--variants", "base", "--steps", "1", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "flagged 1 of 1 results" in capsys.readouterr().err
    assert main([*command, "--no-safety-checker"]) == 0


def test_a_vae_of_another_kind_or_width_is_named(family: ModelFamily, tmp_path: Path) -> None:
    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(
        tmp_path / "tiny_vae"
    )
    with pytest.raises(InputError, match=r"tiny_vae holds an AutoencoderTiny, and here an AutoencoderKL is needed"):
        Generator(replace(family, vae=str(tmp_path / "tiny_vae"))).load()
    AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=16,
        norm_num_groups=4,
    ).save_pretrained(tmp_path / "wide")
    with pytest.raises(InputError, match="makes latents of 16 channels and its UNet reads 4; give a VAE"):
        Generator(replace(family, vae=str(tmp_path / "wide"))).load()
