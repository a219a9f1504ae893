"""The engine on a tiny real pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from npo_core.errors import InputError
from npo_core.weights import load_adapter
from tests.tiny import tiny_family, tiny_pipeline, tiny_scheduler
from tests.train.helpers import random_pairs, small_config, weights_in
from train.engine.config import TrainConfig
from train.engine.loop import train_adapter
from train.engine.run import learning_rate_at
from train.engine.task import StepMetrics
from train.network.models import ReferenceSwitch, trainable_lora
from train.network.policy import encode_prompts
from train.network.schedule import NoiseSchedule
from train.pairs.pairs import PreferencePair, reverse_pairs


class PulledPlugError(Exception):
    """Stands for a kill in the middle of a run."""


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline()


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    def pull_plug(metrics: StepMetrics) -> None:
        if metrics.step == 5:
            raise PulledPlugError

    pairs = random_pairs(7)
    whole = train_adapter(small_config(tmp_path / "whole"), pairs, pipeline)
    broken = small_config(tmp_path / "broken")
    with pytest.raises(PulledPlugError):
        train_adapter(broken, pairs, pipeline, pull_plug)
    steps: list[int] = []
    resumed = train_adapter(replace(broken, resume=True), pairs, pipeline, lambda metrics: steps.append(metrics.step))
    assert steps == [5, 6]  # from the checkpoint at step 4
    assert resumed.sha256 == whole.sha256
    assert resumed.metrics["history"] == whole.metrics["history"]


def test_a_finished_run_can_be_given_more_steps(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    pairs = random_pairs(7)
    whole = train_adapter(small_config(tmp_path / "whole"), pairs, pipeline)
    train_adapter(small_config(tmp_path / "short", max_train_steps=3), pairs, pipeline)
    longer = train_adapter(small_config(tmp_path / "short", resume=True), pairs, pipeline)
    assert weights_in(longer.adapter_path) == weights_in(whole.adapter_path)


def test_training_on_swapped_data_gives_the_same_bytes_as_reversing(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    pairs = random_pairs(6)
    swapped = [PreferencePair(pair.prompt, pair.rejected, pair.preferred, pair.source) for pair in pairs]
    dpo_on_swapped = train_adapter(small_config(tmp_path / "dpo", role="aligned"), swapped, pipeline)
    npo = train_adapter(small_config(tmp_path / "npo", role="negative"), reverse_pairs(pairs), pipeline)
    dpo = train_adapter(small_config(tmp_path / "plain", role="aligned"), pairs, pipeline)
    assert weights_in(dpo_on_swapped.adapter_path) == weights_in(npo.adapter_path)
    assert weights_in(dpo.adapter_path) != weights_in(npo.adapter_path)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_training_raises_the_margin(tmp_path: Path, prediction_type: str) -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = tiny_scheduler(prediction_type)
    config = small_config(tmp_path, max_train_steps=25, batch_size=8, beta_dpo=50.0)
    result = train_adapter(config, random_pairs(8), pipeline)
    assert result.metrics["final_accuracy"] > 0.8
    assert result.metrics["final_loss"] < 0.6


def test_the_first_loss_is_log_2_because_policy_and_reference_are_one(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    seen: list[StepMetrics] = []
    train_adapter(small_config(tmp_path, max_train_steps=1), random_pairs(4), pipeline, seen.append)
    assert seen[0].values["margin"] == 0.0
    assert seen[0].values["loss"] == pytest.approx(np.log(2))


def test_accumulating_in_parts_trains_like_one_batch(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    pairs = random_pairs(6)
    whole = train_adapter(small_config(tmp_path / "whole"), pairs, pipeline)
    parts = train_adapter(small_config(tmp_path / "parts", gradient_accumulation_steps=4), pairs, pipeline)
    first, second = load_adapter(whole.adapter_path), load_adapter(parts.adapter_path)
    for name, layer in first.layers.items():
        torch.testing.assert_close(layer.b, second.layers[name].b, rtol=1e-2, atol=1e-4)


def test_the_pipeline_is_left_as_it_was(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    trainable = [name for name, value in pipeline.unet.named_parameters() if value.requires_grad]
    train_adapter(small_config(tmp_path, max_train_steps=2, mixed_precision="bf16"), random_pairs(4), pipeline)
    after = pipeline.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [name for name, value in pipeline.unet.named_parameters() if value.requires_grad] == trainable
    assert not getattr(pipeline.unet, "peft_config", None)


def test_stock_diffusers_loads_the_adapter_and_its_pictures_change(tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    result = train_adapter(small_config(tmp_path, targets="all"), random_pairs(4), pipeline)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> np.ndarray:
        random = torch.Generator().manual_seed(0)
        return pipeline("a cat", num_inference_steps=2, generator=random, output_type="np").images

    before = draw()
    pipeline.load_lora_weights(str(result.adapter_path.parent))
    assert np.abs(draw() - before).max() > 1e-3


def test_the_records_say_what_was_trained_on(tmp_path: Path) -> None:
    family = tiny_family(tmp_path)
    pairs = random_pairs(5)
    result = train_adapter(small_config(tmp_path / "out"), pairs, family)
    provenance, config, metrics = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("provenance", "config", "metrics")
    )
    assert provenance["sources"] == [pair.source for pair in pairs]
    assert provenance["adapter_sha256"] == result.sha256
    assert provenance["base"] == "tiny"
    assert len(provenance["base_unet_sha256"]) == len(provenance["pairs_sha256"]) == 64
    assert "torch" in provenance["versions"]
    assert config["beta_dpo"] == 500.0
    assert metrics["steps"] == 6
    assert metrics["pairs_per_s"] > 0
    assert not any(str(tmp_path) in json.dumps(each) for each in (provenance, config, metrics))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"loss": "magic"}, "Unknown loss 'magic'; choose from sigmoid, ipo, hinge, bounded."),
        ({"rank": 0}, "The rank is 0; give 1 or more."),
        ({"max_train_steps": 0}, "The number of training steps is 0; give 1 or more."),
        ({"learning_rate": float("nan")}, "The learning rate is nan; give a finite number above 0."),
        ({"seed": -1}, "The seed is -1"),
        ({"batch_size": 6, "gradient_accumulation_steps": 4}, "cannot be split"),
        ({"timestep_range": (0.5, 0.5)}, "The timestep range is 0.5 to 0.5"),
        ({"mixed_precision": "int8"}, "Unknown mixed precision 'int8'"),
        ({"caption_dropout": 2.0}, "The caption dropout is 2.0"),
    ],
)
def test_a_setting_out_of_range_gets_one_sentence(
    tmp_path: Path, pipeline: StableDiffusionPipeline, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence.replace("(", r"\(")):
        train_adapter(small_config(tmp_path, **changes), random_pairs(4), pipeline)
    assert not list(tmp_path.iterdir())


def test_pairs_that_do_not_fit_the_model_get_one_sentence(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    wrong = PreferencePair("a cat", np.zeros((3, 8, 8), np.float16), np.zeros((3, 8, 8), np.float16), "v1")
    odd = PreferencePair("a cat", np.zeros((4, 8, 8), np.float16), np.zeros((4, 8, 4), np.float16), "v2")
    for pairs, sentence in (
        ([], "There are no preference pairs"),
        ([wrong], "wants \\(4, height, width\\)"),
        ([*random_pairs(1), odd], "give pairs of one size"),
    ):
        with pytest.raises(InputError, match=sentence):
            train_adapter(small_config(tmp_path), pairs, pipeline)


@pytest.mark.parametrize("changed", ["rank", "pairs"])
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, pipeline: StableDiffusionPipeline, changed: str
) -> None:
    train_adapter(small_config(tmp_path), random_pairs(4), pipeline)
    config = small_config(tmp_path, resume=True, rank=4 if changed == "rank" else 2)
    with pytest.raises(InputError, match="start without --resume"):
        train_adapter(config, random_pairs(4, seed=changed == "pairs"), pipeline)


def test_a_damaged_checkpoint_gets_one_sentence(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be read"):
        train_adapter(small_config(tmp_path, resume=True), random_pairs(4), pipeline)


def test_the_reference_is_the_untouched_base(pipeline: StableDiffusionPipeline) -> None:
    unet = pipeline.unet
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([10, 999]), torch.randn(2, 77, 32))
    with torch.no_grad():
        base = unet(*inputs).sample
    with trainable_lora(unet, 2, 2, "attention", seed=0) as weights:
        for weight in weights:
            weight.data += 0.1
        with ReferenceSwitch(unet).reference():
            assert torch.equal(unet(*inputs).sample, base)
        policy = unet(*inputs).sample
        assert not torch.allclose(policy, base)
        policy.sum().backward()
        assert all(weight.grad is not None for weight in weights)


def test_each_distinct_prompt_is_encoded_once_and_as_the_pipeline_does(pipeline: StableDiffusionPipeline) -> None:
    table = encode_prompts(pipeline, ["a cat", "a dog", "a cat"], torch.device("cpu"))
    embeddings, rows = table.text, table.rows
    assert embeddings.shape == (3, 77, 32)
    assert rows == {"": 0, "a cat": 1, "a dog": 2}
    for prompt, row in rows.items():
        alone, unconditional = pipeline.encode_prompt(prompt, "cpu", 1, True)
        torch.testing.assert_close(embeddings[row], alone[0])
        torch.testing.assert_close(embeddings[0], unconditional[0])


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_the_target_leads_back_to_the_clean_picture(pipeline: StableDiffusionPipeline, prediction_type: str) -> None:
    pipeline = StableDiffusionPipeline(**{**pipeline.components, "scheduler": tiny_scheduler(prediction_type)})
    schedule = NoiseSchedule(pipeline.scheduler.config, torch.device("cpu"))
    clean, noise = torch.randn(2, 1, 4, 8, 8)
    for timestep in (0, 500, 900):
        at = torch.tensor([timestep])
        noisy, target = schedule.noisy(clean, noise, at), schedule.target(clean, noise, at)
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(1000)
        back = scheduler.step(target, timestep, noisy).pred_original_sample
        torch.testing.assert_close(back, clean, rtol=1e-2, atol=1e-3)


def test_the_target_is_finite_at_zero_terminal_snr(pipeline: StableDiffusionPipeline) -> None:
    schedule = NoiseSchedule(pipeline.scheduler.config, torch.device("cpu"))
    clean, noise, last = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.tensor([999])
    torch.testing.assert_close(schedule.noisy(clean, noise, last), noise, atol=1e-3, rtol=0)
    torch.testing.assert_close(schedule.target(clean, noise, last), -clean, atol=1e-3, rtol=0)


def test_the_learning_rate_warms_up_and_falls(tmp_path: Path) -> None:
    config = TrainConfig("tiny", tmp_path, max_train_steps=10, learning_rate=1.0, warmup_steps=3, lr_schedule="cosine")
    rates = [learning_rate_at(config, step) for step in range(10)]
    assert rates[0] == pytest.approx(0.25)
    assert max(rates) == max(rates[2:5])
    assert rates[9] < 0.05
    constant = replace(config, lr_schedule="constant", warmup_steps=0)
    assert {learning_rate_at(constant, step) for step in range(10)} == {1.0}


def test_bfloat16_trains_to_about_the_same_weights(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    pairs = random_pairs(6)
    settings = {"max_train_steps": 10, "learning_rate": 1e-3}
    precise = train_adapter(small_config(tmp_path / "no", **settings), pairs, pipeline)
    fast = train_adapter(small_config(tmp_path / "bf16", mixed_precision="bf16", **settings), pairs, pipeline)
    first, second = load_adapter(precise.adapter_path), load_adapter(fast.adapter_path)
    whole = torch.cat([layer.b.flatten() for layer in first.layers.values()])
    other = torch.cat([layer.b.flatten() for layer in second.layers.values()])
    assert torch.nn.functional.cosine_similarity(whole, other, dim=0) > 0.95
