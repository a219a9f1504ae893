from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.generate import build_parser, main
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_clip, open_image, sha256_hex
from tests.tiny import tiny_adapter


@pytest.fixture(autouse=True)
def registered(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "tiny", family)


def test_the_pictures_and_all_that_made_them_are_written(
    tmp_path: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    newer = tiny_adapter(tmp_path / "newer", "negative", seed=7)
    arguments = ["a red apple", "--family", "tiny", "--seed", "7", "--steps", "2", "--negative-prompt", "blurry"]
    arguments += ["--alpha", "0.5", "--beta", "1.5", "--guidance-scale", "3", "--scheduler", "euler"]
    assert main([*arguments, "--negative", str(newer.path), "--out", str(out)]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert sorted(names) == sorted(path.name for path in out.iterdir())
    assert {"base.png", "aligned.png", "aligned_npo.png", "side_by_side.png", "request.json"} <= set(names)

    recorded = json.loads((out / "request.json").read_text())
    assert recorded["prompt"] == "a red apple"
    assert recorded["negative_prompt"] == "blurry"
    assert recorded["family"] == "tiny"
    assert (recorded["seed"], recorded["steps"], recorded["scheduler"]) == (7, 2, "euler")
    assert (recorded["alpha"], recorded["beta"], recorded["guidance_scale"]) == (0.5, 1.5, 3.0)
    assert (recorded["width_px"], recorded["height_px"], recorded["frames"], recorded["fps"]) == (64, 64, 1, None)
    assert recorded["adapters"]["negative"] == {"id": newer.id, "sha256": newer.sha256}
    assert recorded["versions"].keys() >= {"torch", "diffusers"}

    again = generator.generate(
        GenerationRequest(
            "a red apple", "blurry", seed=7, steps=2, alpha=0.5, beta=1.5, guidance_scale=3, scheduler="euler"
        )
    )
    latents = load_file(out / "latents.safetensors")
    for sample, entry in zip(again.samples, recorded["samples"], strict=True):
        picture = (out / entry["file"]).read_bytes()
        assert entry["variant"] == sample.variant
        assert entry["media_sha256"] == sha256_hex(picture)
        assert (picture == sample.media) == (sample.variant != "aligned_npo"), "only it uses the other negative"
        assert np.array_equal(latents[sample.variant], sample.latents) == (sample.variant != "aligned_npo")
    assert Image.open(out / "side_by_side.png").width > 3 * 64


def test_clips_are_written_with_strip_poster_and_the_formats_asked_for(tmp_path: Path) -> None:
    arguments = ["a red apple", "--family", "tiny", "--modality", "video", "--frames", "3", "--fps", "6"]
    assert main([*arguments, "--also", "gif", "--variants", "base,aligned", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        *("base.mp4", "aligned.mp4", "side_by_side.mp4", "base.gif", "aligned.gif", "side_by_side.gif"),
        *("poster.png", "request.json", "latents.safetensors"),
    }
    recorded = json.loads((tmp_path / "request.json").read_text())
    assert (recorded["modality"], recorded["frames"], recorded["fps"], recorded["steps"]) == ("video", 3, 6.0, 2)
    assert [sample["file"] for sample in recorded["samples"]] == ["base.mp4", "aligned.mp4"]
    for sample in recorded["samples"]:
        assert sample["media_sha256"] == sha256_hex((tmp_path / sample["file"]).read_bytes())
    assert load_file(tmp_path / "latents.safetensors")["aligned"].shape == (3, 4, 8, 8)
    strip = open_clip((tmp_path / "side_by_side.mp4").read_bytes())
    assert len(strip) == 3
    assert strip[0].width > 2 * 64
    assert Image.open(tmp_path / "poster.png").width in (strip[0].width, strip[0].width - 1)


def test_the_variants_asked_for_are_made(tmp_path: Path) -> None:
    arguments = ["a cat", "--family", "tiny", "--variants", "base_npo, base", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"base_npo.png", "base.png", "side_by_side.png"}


def test_a_grid_is_one_batch_and_every_cell_is_the_picture_of_its_alpha_and_beta(
    tmp_path: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["a red apple", "--family", "tiny", "--seed", "7", "--out", str(tmp_path)]
    assert main([*arguments, "--grid-alpha", "0,0.5,1", "--grid-beta", "0, 1.5"]) == 0
    written = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    cells = {(alpha, beta): f"alpha_{alpha:g}_beta_{beta:g}.png" for alpha in (0, 0.5, 1) for beta in (0, 1.5)}
    assert written == {"grid.png", "grid.json", *cells.values()} == {path.name for path in tmp_path.iterdir()}
    recorded = json.loads((tmp_path / "grid.json").read_text())
    assert [(each["alpha"], each["beta"], each["file"]) for each in recorded] == [(*key, cells[key]) for key in cells]
    for (alpha, beta), name in cells.items():
        alone = generator.generate(
            GenerationRequest("a red apple", seed=7, variants=("aligned_npo",), alpha=alpha, beta=beta)
        )
        difference = np.subtract(Image.open(tmp_path / name), open_image(alone.samples[0].media), dtype=int)
        assert np.abs(difference).max() <= 2, "beyond rounding"
    grid = Image.open(tmp_path / "grid.png")
    assert grid.width > 2 * 64
    assert grid.height > 3 * 64


def test_the_alphas_of_a_grid_may_be_left_out(tmp_path: Path) -> None:
    arguments = ["a cat", "--family", "tiny", "--alpha", "0.3", "--grid-beta", "0,1", "--steps", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "alpha_0.3_beta_1.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([""], "The prompt is empty"),
        (["x" * 500], "The prompt has 500 tokens and Tiny reads 75"),
        (["a cat", "--seed", "-1"], "The seed is -1"),
        (["a cat", "--steps", "0"], "The number of steps is 0; give a whole number from 1 to 200."),
        (["a cat", "--grid-alpha", "0,one"], "--grid-alpha is '0,one'; give numbers with commas between"),
        (["a cat", "--grid-beta", "1,1"], "--grid-beta is '1,1' and has a number twice; give each once."),
        (["a cat", "--grid-beta", "0,9"], "Beta is 9.0; give a number from -2 to 4."),
        (["a cat", "--routing", "fast"], "Unknown routing 'fast'; choose from low_rank, weight_sets, streamed_sets"),
        (["a cat", "--family", "none"], "Unknown family 'none'; choose from emoji, "),
        (["a cat", "--negative", "none.safetensors"], "There is no adapter at none.safetensors"),
        (["a cat", "--frames", "8"], "A picture has one frame;"),
        (["a cat", "--also", "gif"], "--also gif is for clips; leave it out, or ask for --modality video."),
        (["a cat", "--modality", "video", "--also", "avi"], "Unknown clip format 'avi'; choose from gif, webp."),
        (["a cat", "--modality", "sound"], "Family 'tiny' does not make modality 'sound'; choose from image, video."),
        (["a cat", "--out", "/dev/null/folder"], "The folder /dev/null/folder cannot be made"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["--family", "tiny", "--out", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {sentence}")


def test_a_corrupt_adapter_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corrupt = tmp_path / "corrupt.safetensors"
    corrupt.write_bytes(b"corrupt")
    assert main(["a cat", "--family", "tiny", "--negative", str(corrupt), "--out", str(tmp_path)]) == 2
    assert f"error: {corrupt} cannot be read as weights" in capsys.readouterr().err


def test_a_mistake_is_answered_before_the_slow_imports() -> None:
    code = (
        "import sys; from npo_core.generate import main; status = main(['a cat', '--steps', '0']); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: The number of steps is 0; give a whole number from 1 to 200.\n"


def test_the_help_names_every_flag_of_the_contract() -> None:
    text = build_parser().format_help()
    flags = (
        "family modality seed negative-prompt steps guidance-scale alpha beta scheduler variants aligned negative out"
    )
    for flag in flags.split():
        assert f"--{flag}" in text
