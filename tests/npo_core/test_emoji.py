"""The family that ships: it loads as a stock pipeline, fits its budget, and draws what is asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from npo_core.catalog.families import EMOJI_FOLDER, get_family
from npo_core.catalog.prompts import load_guide
from npo_core.emoji.scorer import load_scorer
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_clip, open_image, sha256_file
from train.emoji.drawing.motions import MOTIONS, with_motion
from train.emoji.motion_measure import name_motion, read_course

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator("emoji")


def test_pictures_fit_in_80_and_motion_in_15_megabytes_of_half_precision_safetensors() -> None:
    files = [path for path in EMOJI_FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    motion = [path for path in files if path.parent.name == "motion"]
    assert sum(path.stat().st_size for path in files if path not in motion) <= 80 * MEGABYTE
    assert sum(path.stat().st_size for path in motion) <= 15 * MEGABYTE
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) == 7  # UNet, VAE, text encoder, two LoRAs, scorer, motion adapter
    for path in weights:
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict
        assert kinds == {"F16"}, path


def test_it_loads_as_a_stock_stable_diffusion_pipeline_and_draws_128_px() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(EMOJI_FOLDER, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a cat, 3d style", num_inference_steps=2, guidance_scale=4.0).images[0]
    assert image.size == (128, 128)


def test_the_autoencoder_finds_its_own_latents_again() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(EMOJI_FOLDER, dtype=torch.float32)
    image = torch.linspace(-1, 1, 128).expand(1, 3, 128, 128)
    with torch.no_grad():
        back = pipeline.vae.decode(pipeline.vae.encode(image).latent_dist.mode()).sample
    assert (back - image).square().mean() < 0.02


def test_the_same_request_gives_the_same_bytes(generator: Generator) -> None:
    request = GenerationRequest(prompt="a red apple, cartoon style", seed=3, steps=4)
    first, second = generator.generate(request), generator.generate(request)
    assert [sample.media_sha256 for sample in first.samples] == [sample.media_sha256 for sample in second.samples]
    assert len({sample.media_sha256 for sample in first.samples}) == 3


@pytest.mark.slow
def test_the_aligned_and_npo_variants_are_recognised_by_the_scorer(generator: Generator) -> None:
    family = get_family("emoji")
    assert family.guide is not None
    assert family.scorer is not None
    prompts = list(load_guide(family.guide).suggestions)[:8]
    made = generator.generate_batch([GenerationRequest(prompt=prompt, seed=11) for prompt in prompts])
    judge = load_scorer(family.scorer)
    for column, variant in enumerate(("base", "aligned", "aligned_npo")):
        images = [open_image(each.samples[column].media) for each in made]
        right = judge.top1(images, prompts)
        assert np.mean(right) >= (0.75 if variant == "base" else 0.85), (variant, right)


def test_the_vocabulary_names_only_what_the_scorer_can_judge() -> None:
    family = get_family("emoji")
    assert family.guide is not None
    assert family.scorer is not None
    guide, labels = load_guide(family.guide), load_scorer(family.scorer).labels
    assert set(guide.concepts) <= set(labels.concepts)
    assert set(guide.styles) == set(labels.styles)
    assert set(guide.backgrounds) == set(labels.backgrounds)


@pytest.mark.parametrize("file", sorted(EMOJI_FOLDER.glob("evaluation*.json")), ids=lambda file: file.stem)
def test_the_measured_tables_are_of_the_weights_that_ship(file: Path) -> None:
    table = json.loads(file.read_text())
    for role in ("aligned", "negative"):
        content = (EMOJI_FOLDER / role / "pytorch_lora_weights.safetensors").read_bytes()
        assert table["adapters"][role]["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_table_of_clips_is_of_the_weights_that_ship_and_meets_its_bars() -> None:
    table = json.loads((EMOJI_FOLDER / "motion" / "evaluation.json").read_text())
    files = {
        "motion": "motion/diffusion_pytorch_model.safetensors",
        "text_encoder": "text_encoder/model.safetensors",
        "aligned": "aligned/pytorch_lora_weights.safetensors",
        "negative": "negative/pytorch_lora_weights.safetensors",
    }
    assert table["sha256"] == {name: sha256_file(EMOJI_FOLDER / file) for name, file in files.items()}
    assert table["clips_per_motion"] * len(MOTIONS) >= 100
    for measured in table["variants"].values():
        assert measured["all"]["agreement"] >= 0.8
        assert measured["all"]["identity"] >= 0.7


@pytest.mark.slow
@pytest.mark.parametrize("motion", ["slide_left", "slide_right", "zoom_in"])
def test_a_clip_moves_as_the_prompt_says(motion: str, generator: Generator) -> None:
    prompt = with_motion("a red apple, 3d style", motion)
    request = GenerationRequest(prompt, seed=1, modality="video", variants=("base",))
    made = generator.generate(request)
    assert name_motion(read_course(open_clip(made.samples[0].media))) == motion
