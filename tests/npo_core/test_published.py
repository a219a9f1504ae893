"""Every family loads and paints from the Hub's local cache, with models that are tiny but otherwise as published."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from npo_core.catalog import hub
from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.families import FAMILIES, ModelFamily, build_scheduler
from npo_core.catalog.references import find, locate
from npo_core.errors import InputError
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.sampling.pipelines import load_pipeline
from tests.hub_server import LocalHub, local_hub, offline
from tests.published import publish

ROOT = Path(__file__).parents[2]
PUBLISHED = [name for name in FAMILIES if name != "emoji"]
ALL = ("base", "aligned", "aligned_npo", "base_npo", "aligned_vs_base")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A Hub with every published model, and an empty cache in front of it."""
    root = tmp_path_factory.mktemp("hub")
    publish(root / "models")
    with local_hub(root, root / "cache") as running:
        yield running


@pytest.fixture(scope="module")
def cache(server: LocalHub) -> Iterator[Path]:
    """The local cache after `fetch` of every family; the network is gone."""
    for name in PUBLISHED:
        hub.fetch(FAMILIES[name])
    with offline():
        yield server.root / "cache"


@functools.cache
def generator(name: str) -> Generator:
    """Loaded once for all tests."""
    return Generator(at_tiny_size(name))


def at_tiny_size(name: str) -> ModelFamily:
    family = replace(FAMILIES[name], width_px=64, height_px=64, steps=2)
    return replace(family, video=replace(family.video, frames=4, steps=2)) if family.video else family


def paint(family: str | ModelFamily, **settings: Any) -> Comparison:
    made_by = generator(family) if isinstance(family, str) else Generator(family)
    return made_by.generate(GenerationRequest("a red apple", seed=3, variants=ALL, **settings))


def latents(comparison: Comparison) -> dict[str, np.ndarray]:
    return {sample.variant: sample.latents for sample in comparison.samples}


def test_a_missing_model_is_one_sentence_with_the_command_that_fetches_it(server: LocalHub) -> None:
    with offline(), pytest.raises(InputError) as raised:
        Generator("sd15").load()
    sentence = str(raised.value)
    assert sentence.startswith("Stable Diffusion 1.5 is not complete on this machine (missing: base model stable-d")
    assert sentence.endswith("; fetch it with `python -m npo_core.weights fetch --family sd15`.")
    assert "\n" not in sentence


def test_fetching_takes_each_weight_once_and_nothing_else(cache: Path) -> None:
    files = {
        str(path.relative_to(cache)).split("/", 3)[0] + "/" + str(path.relative_to(cache)).split("/", 3)[3]
        for path in cache.glob("*/snapshots/*/**/*")
        if path.is_file()
    }
    assert not [name for name in files if name.endswith((".ckpt", ".bin")) or "non_ema" in name]
    halves = {name for name in files if ".fp16." in name}
    assert halves, "one repository has nothing else"
    assert all("Juggernaut" in name for name in halves)
    assert "models--stable-diffusion-v1-5--stable-diffusion-v1-5/tokenizer/merges.txt" in files
    assert "models--RunDiffusion--Juggernaut-XL-v9/vae/config.json" not in files, "its VAE is replaced"


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_family_paints_its_variants_offline(name: str, cache: Path) -> None:
    family = at_tiny_size(name)
    assert hub.missing(family, family.modalities[-1]) == []
    default = latents(paint(name))
    assert len({array.tobytes() for array in default.values()}) == len(ALL), "every variant is its own"
    plain = latents(paint(name, alpha=1.0, beta=0.0))
    np.testing.assert_allclose(plain["aligned_npo"], plain["aligned"], rtol=2e-3, atol=2e-3)
    ablation = latents(paint(name, alpha=0.0, beta=0.0))
    np.testing.assert_allclose(ablation["aligned_npo"], ablation["aligned_vs_base"], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_base_and_aligned_are_what_the_stock_pipeline_paints(name: str, cache: Path) -> None:
    family = at_tiny_size(name)
    ours = latents(paint(name, guidance_scale=3.0))
    pipeline = load_pipeline(family)
    pipeline.scheduler = build_scheduler(family.scheduler, pipeline.scheduler.config)
    np.testing.assert_allclose(stock(pipeline), ours["base"], rtol=2e-3, atol=2e-3)
    assert family.aligned
    if family.aligned.endswith("/unet"):
        pipeline.unet = UNet2DConditionModel.from_pretrained(
            locate(family.aligned), variant=hub.variant(locate(family.aligned))
        )
    else:
        pipeline.load_lora_weights(locate(family.aligned))
    np.testing.assert_allclose(stock(pipeline), ours["aligned"], rtol=2e-3, atol=2e-3)


def stock(pipeline: Any) -> np.ndarray:
    made = pipeline(
        "a red apple",
        generator=torch.Generator().manual_seed(3),
        num_inference_steps=2,
        guidance_scale=3.0,
        width=64,
        height=64,
        output_type="latent",
    )
    return made.images[0].numpy()


@pytest.mark.parametrize("name", ["dreamshaper", "juggernaut"])
def test_a_fine_tuned_family_is_its_published_pipeline_when_aligned(name: str, cache: Path) -> None:
    family = at_tiny_size(name)
    assert family.pipeline
    folder = locate(family.pipeline)
    whole = load_pipeline(family)
    text = load_file(next(path for path in (folder / "text_encoder").glob("*.safetensors")))
    for key, tensor in whole.text_encoder.state_dict().items():
        torch.testing.assert_close(tensor, text[key].float())


def test_clips_come_from_the_cache_too(cache: Path) -> None:
    made = paint("sd15", modality="video", frames=4)
    assert {sample.media_type for sample in made.samples} == {"video/mp4"}
    assert len({sample.media_sha256 for sample in made.samples}) == len(ALL)


def test_the_vae_of_sdxl_is_safe_in_half_precision(cache: Path, server: LocalHub) -> None:
    family = at_tiny_size("sdxl")
    assert load_pipeline(family, torch.float16).vae.dtype == torch.float16, "the replaced one needs no more"
    published = replace(family, vae=str(server.root / "models" / family.base / "vae"))
    assert load_pipeline(published, torch.float16).vae.dtype == torch.float32, "the published one overflows"


def test_an_npo_file_may_be_a_whole_state_dict(cache: Path, tmp_path: Path) -> None:
    family = at_tiny_size("sd15-spo")
    pipeline = load_pipeline(family)
    pipeline.load_lora_weights(locate(str(family.negative)))
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    whole = {name: tensor.contiguous() for name, tensor in pipeline.unet.state_dict().items()}
    save_file(whole, tmp_path / "npo.safetensors")
    expected = latents(paint(family.name))
    made = latents(paint(replace(family, negative=str(tmp_path / "npo.safetensors"))))
    np.testing.assert_allclose(made["base_npo"], expected["base_npo"], rtol=4e-3, atol=4e-3)
    np.testing.assert_allclose(made["aligned_npo"], expected["aligned_npo"], rtol=4e-3, atol=4e-3)


def test_an_adapter_of_another_family_says_whose_it_looks(cache: Path) -> None:
    xl = adapter_file(str(FAMILIES["sdxl-spo"].aligned), "aligned")
    with pytest.raises(
        InputError, match=r"looks like one for a model whose text is 64 wide, and this is one whose text is 32"
    ):
        Generator(at_tiny_size("sd15"), aligned=xl).load()


def test_a_link_into_nowhere_and_a_half_fetched_pipeline_count_as_missing(cache: Path, tmp_path: Path) -> None:
    family = at_tiny_size("sd15")
    copy = tmp_path / "copy"
    load_pipeline(family).save_pretrained(copy)
    here = replace(family, base=str(copy))
    assert hub.missing(here) == []
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "nowhere")
    assert [need.what for need in hub.missing(here)] == ["base model"]
    with pytest.raises(InputError, match=r"missing: base model .*copy\); put it there"):
        Generator(here).load()


def test_a_hub_that_is_down_or_lacks_the_model_is_one_sentence(
    server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match=r"someone/nothing cannot be fetched .*; check the network and the name"):
        hub.fetch(replace(FAMILIES["sd15"], base="someone/nothing"))
    monkeypatch.setattr(server, "down", True)
    with pytest.raises(InputError, match="cannot be fetched"):
        hub.fetch(FAMILIES["sd15"])


@pytest.mark.slow
def test_the_command_line_paints_from_the_cache_without_a_network(cache: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    command = [sys.executable, "-m", "npo_core.generate", "an apple", "--steps", "1", "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, "--family", "sdxl-spo"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "side_by_side.png").is_file()
    environment["HF_HUB_CACHE"] = str(tmp_path / "empty")
    done = subprocess.run(
        [*command, "--family", "sd15"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "python -m npo_core.weights fetch --family sd15" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reference_on_the_hub_is_told_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lora.safetensors").touch()
    assert find("mine/lora.safetensors") == Path("mine/lora.safetensors")
    assert find("./nothing/here") is None
    with pytest.raises(InputError, match="give an existing path"):
        locate("./nothing/here")
