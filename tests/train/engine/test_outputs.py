"""What a finished run leaves, and what it shows while it goes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.weights import load_adapter
from tests.tiny import tiny_family, tiny_pipeline
from tests.train.helpers import random_pairs, small_config, weights_in
from train.commands.jobs import push_to_hub
from train.engine.config import TRACKERS
from train.engine.loop import train_adapter
from train.engine.results import COMFYUI_FILE_NAME
from train.engine.validation import PictureGrid
from train.network.policy import encode_prompts
from train.pairs.pairs import reverse_pairs

GAP_PX = 4  # around the pictures of a grid


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_adapter(small_config(folder, targets="all", lora_alpha=4, log_every=2), random_pairs(5), tiny_pipeline())
    return folder


def test_comfyui_s_keys_hold_the_same_lora(finished: Path) -> None:
    """lora_unet_LAYER.lora_down.weight, lora_up, alpha: ComfyUI's names for diffusers layers."""
    tensors, layers = load_file(finished / COMFYUI_FILE_NAME), load_adapter(finished).layers
    assert len(tensors) == 3 * len(layers)
    for name, layer in layers.items():
        key = f"lora_unet_{name.replace('.', '_')}"
        rank = tensors[f"{key}.lora_down.weight"].shape[0]
        scale = tensors[f"{key}.alpha"].item() / rank
        up, down = tensors[f"{key}.lora_up.weight"].flatten(1), tensors[f"{key}.lora_down.weight"].flatten(1)
        torch.testing.assert_close(scale * up @ down, layer.scale * layer.b.flatten(1) @ layer.a.flatten(1))
    assert scale == 2.0  # lora_alpha 4 at rank 2


def test_stock_diffusers_draws_the_same_from_either_file(finished: Path) -> None:
    def draw(name: str) -> np.ndarray:
        pipeline = tiny_pipeline()
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_lora_weights(str(finished), weight_name=name)
        random = torch.Generator().manual_seed(0)
        return pipeline("a cat", num_inference_steps=2, generator=random, output_type="np").images

    np.testing.assert_allclose(draw(COMFYUI_FILE_NAME), draw("pytorch_lora_weights.safetensors"), atol=1e-5)


def test_the_model_card_states_this_run_s_numbers(finished: Path) -> None:
    card = (finished / "README.md").read_text()
    metrics = json.loads((finished / "metrics.json").read_text())
    provenance = json.loads((finished / "provenance.json").read_text())
    assert card.startswith("---\nbase_model: ")
    assert f"| final_loss | {metrics['final_loss']:.5g} |" in card
    assert provenance["adapter_sha256"] in card
    assert "trained on 5 preference pairs (Diffusion-NPO, arXiv 2505.11245)." in card
    assert "| beta_dpo | 500 |" in card
    assert "beta_dpo multiplies errors of v, which this base predicts" in card


def test_the_table_and_the_curves_hold_every_metric(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    history = json.loads((finished / "metrics.json").read_text())["history"]
    assert [float(row["loss"]) for row in rows] == pytest.approx([row["loss"] for row in history])
    assert Image.open(finished / "curves.png").size[0] > 300


def test_the_grid_shows_the_new_negative_in_its_negative_role(tmp_path: Path, tiny: ModelFamily) -> None:
    config = small_config(tmp_path / "run", validate_every=6, checkpoint_every=6)
    pictures = PictureGrid(Generator(tiny, device="cpu"), "negative", ["a cat"], None)
    result = train_adapter(config, reverse_pairs(random_pairs(4)), tiny, validators=[pictures])
    grid = Image.open(tmp_path / "run" / "validation" / "step_000006.png")
    assert grid.size == (2 * 64 + 3 * GAP_PX, 64 + 2 * GAP_PX)
    generator = Generator(replace(tiny, negative=str(result.adapter_path)), device="cpu")
    made = generator.generate(GenerationRequest("a cat", seed=0, variants=("aligned", "aligned_npo")))
    for place, sample in enumerate(made.samples):
        left_px = GAP_PX + place * (64 + GAP_PX)
        shown = grid.crop((left_px, GAP_PX, left_px + 64, GAP_PX + 64))
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(open_image(sample.media)))


def test_both_text_encoders_of_sdxl_are_read_once_and_kept(tmp_path: Path) -> None:
    pipeline = tiny_sdxl()
    cpu = torch.device("cpu")
    table = encode_prompts(pipeline, ["a cat", "a dog", "a cat"], cpu, (64, 96), tmp_path)
    expected, _, pooled, _ = pipeline.encode_prompt("a dog", device=cpu, do_classifier_free_guidance=False)
    row = torch.tensor([table.rows["a dog"]])
    conditioning = table.conditioning(row)
    torch.testing.assert_close(conditioning["encoder_hidden_states"], expected)
    torch.testing.assert_close(conditioning["added_cond_kwargs"]["text_embeds"], pooled)
    assert conditioning["added_cond_kwargs"]["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]
    pipeline.encode_prompt = None  # a second run asks the encoders nothing
    again = encode_prompts(pipeline, ["a dog", "a cat"], cpu, (64, 96), tmp_path)
    torch.testing.assert_close(again.text[again.rows["a dog"]], table.text[table.rows["a dog"]])


@pytest.mark.parametrize("forced", [True, False])
def test_no_prompt_is_trained_on_as_the_pipeline_samples_it(tmp_path: Path, forced: bool) -> None:
    """Zeros where SDXL has them in the place of an empty negative prompt; a caption that is "" is still encoded."""
    pipeline = tiny_sdxl()
    pipeline.register_to_config(force_zeros_for_empty_prompt=forced)
    cpu = torch.device("cpu")
    empty, nothing, empty_pooled, nothing_pooled = pipeline.encode_prompt("", device=cpu)
    assert bool(nothing.any()) is bool(nothing_pooled.any()) is not forced
    encode_prompts(tiny_sdxl(), ["a cat", ""], cpu, (64, 64), tmp_path)  # what is kept serves pipelines of either kind
    for cache in (None, tmp_path):
        table = encode_prompts(pipeline, ["a cat", ""], cpu, (64, 64), cache)
        for row, text, pooled in ((0, nothing, nothing_pooled), (table.rows[""], empty, empty_pooled)):
            conditioning = table.conditioning(torch.tensor([row]))
            torch.testing.assert_close(conditioning["encoder_hidden_states"], text)
            torch.testing.assert_close(conditioning["added_cond_kwargs"]["text_embeds"], pooled)


def test_a_dropped_caption_of_sdxl_becomes_zeros(tmp_path: Path) -> None:
    """With every caption dropped, and with captions whose embeddings are zeros anyway, the same is learned."""
    dropped, silent = tiny_sdxl(), tiny_sdxl()
    encode = silent.encode_prompt
    silent.encode_prompt = lambda **how: tuple(part if part is None else 0 * part for part in encode(**how))
    train_adapter(small_config(tmp_path / "a", max_train_steps=3, caption_dropout=1.0), random_pairs(4), dropped)
    train_adapter(small_config(tmp_path / "b", max_train_steps=3), random_pairs(4), silent)
    assert weights_in(tmp_path / "a") == weights_in(tmp_path / "b")


def test_sdxl_trains(tmp_path: Path) -> None:
    pipeline = tiny_sdxl()
    result = train_adapter(small_config(tmp_path, max_train_steps=2), random_pairs(4), pipeline)
    assert result.metrics["steps"] == 2


def tiny_sdxl():  # type: ignore[no-untyped-def]  # a StableDiffusionXLPipeline, imported here for its two seconds
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    plain = tiny_pipeline()
    settings = {**plain.text_encoder.config.to_dict(), "projection_dim": 24}
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=plain.vae,
        text_encoder=CLIPTextModel(CLIPTextConfig(**settings)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**settings)),
        tokenizer=plain.tokenizer,
        tokenizer_2=plain.tokenizer,
        unet=unet,
        scheduler=plain.scheduler,
    )


def test_what_is_not_installed_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install bitsandbytes"):
        train_adapter(small_config(tmp_path, optimizer="adamw8bit"), random_pairs(4), tiny_pipeline())


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed_is_said_before_the_run(tmp_path: Path, tracker: str) -> None:
    if any(find_spec(package) for package in TRACKERS[tracker]):
        pytest.skip(f"{tracker} is installed")
    with pytest.raises(InputError, match=f"needs the package {tracker}; run pip install {tracker}, or leave"):
        train_adapter(small_config(tmp_path, track_with=tracker), random_pairs(4), tiny_pipeline())
    assert not list(tmp_path.iterdir())


def test_an_upload_that_fails_says_so_and_the_run_stays_finished(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(InputError, match="is finished but was not uploaded to me/mine"):
        push_to_hub(finished, "me/mine")
    assert (finished / "pytorch_lora_weights.safetensors").is_file()
