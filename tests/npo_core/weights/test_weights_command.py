from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from npo_core.catalog.families import ModelFamily
from npo_core.generator import GenerationRequest, Generator, adapter_file
from npo_core.weights import load_adapter
from npo_core.weights.__main__ import main
from tests.published import changed
from tests.tiny import tiny_pipeline


def test_a_fine_tuned_unet_becomes_a_lora_and_the_error_is_reported(
    tmp_path: Path, family: ModelFamily, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(tiny_pipeline().unet, seed=1).save_pretrained(tmp_path / "tuned")
    command = ["extract", "--base", f"{family.base}/unet", "--tuned", str(tmp_path / "tuned"), "--out"]
    assert main([*command, str(tmp_path / "whole"), "--rank", "64"]) == 0
    assert "relative error 0." in capsys.readouterr().out
    assert main([*command, str(tmp_path / "small"), "--rank", "2"]) == 0
    assert max(layer.rank for layer in load_adapter(tmp_path / "small").layers.values()) == 2
    made = Generator(family, aligned=adapter_file(tmp_path / "whole", "aligned"))
    assert len(made.generate(GenerationRequest("a cat", variants=("base", "aligned"))).samples) == 2
    assert main([*command, str(tmp_path / "x"), "--rank", "0"]) == 2
    assert main([*command[:3], "--tuned", str(tmp_path / "whole"), "--out", str(tmp_path / "x")]) == 2
    assert "is a LoRA already; give a whole UNet" in capsys.readouterr().err
    assert main(["extract", "--base", str(tmp_path), "--tuned", str(tmp_path / "tuned"), "--out", "x"]) == 2


def test_a_pickle_is_read_only_by_whoever_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"a": torch.ones(2), "epoch": 3}}, tmp_path / "old.ckpt")
    command = ["convert", str(tmp_path / "old.ckpt"), str(tmp_path / "new.safetensors")]
    assert main(command) == 2
    assert "a pickle can run code" in capsys.readouterr().err
    assert main([*command, "--run-pickle"]) == 0
    assert load_file(tmp_path / "new.safetensors").keys() == {"a"}
    (tmp_path / "old.ckpt").write_bytes(b"nonsense")
    assert main([*command, "--run-pickle"]) == 2
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert "RUNS CODE" in capsys.readouterr().out


def test_an_unknown_family_is_not_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "--family", "sd9"]) == 2
    assert "Unknown family 'sd9'" in capsys.readouterr().err
    assert main(["fetch", "--family", "emoji"]) == 0
