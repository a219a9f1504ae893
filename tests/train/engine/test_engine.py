"""What the engine does besides minimising: weights, averages, held-out pairs, shared reference work, bad luck."""

from __future__ import annotations

import copy
import csv
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from npo_core.errors import InputError
from npo_core.weights import LowRankWeights, load_adapter
from tests.tiny import tiny_pipeline, tiny_weights
from tests.train.helpers import PROMPTS, random_pairs, small_config, weights_in
from train.engine.loop import train_adapter
from train.engine.task import StepMetrics
from train.engine.validation import HeldOut
from train.objectives.preference import Compared
from train.pairs.pairs import PreferencePair, reverse_pairs


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return tiny_pipeline()


def flat(folder: Path) -> torch.Tensor:
    return torch.cat([layer.b.flatten() for layer in load_adapter(folder).layers.values()])


def test_a_pair_of_weight_zero_teaches_nothing(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    first, second = random_pairs(2)
    silent = replace(random_pairs(1, seed=9)[0], prompt=second.prompt, weight=0.0)
    for name, other in (("a", silent), ("b", replace(silent, preferred=silent.rejected, rejected=silent.preferred))):
        train_adapter(small_config(tmp_path / name), [replace(first, weight=2.0), other], pipeline)
    torch.testing.assert_close(flat(tmp_path / "a"), flat(tmp_path / "b"))


def test_smoothing_trains_towards_a_smaller_margin(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    settings: dict[str, Any] = {"max_train_steps": 15, "beta_dpo": 200.0}
    plain = train_adapter(small_config(tmp_path / "0", **settings), random_pairs(4), pipeline)
    smooth = train_adapter(small_config(tmp_path / "1", label_smoothing=0.4, **settings), random_pairs(4), pipeline)
    assert 0 < smooth.metrics["final_margin"] < plain.metrics["final_margin"]


def test_the_average_of_the_weights_is_what_is_kept(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    """A moving average with decay d after one step is d * start + (1 - d) * step 1; B starts at zero, d at 2/11."""
    pairs = random_pairs(4)
    train_adapter(small_config(tmp_path / "plain", max_train_steps=1), pairs, pipeline)
    for decay in (0.1, 0.75):
        train_adapter(small_config(tmp_path / f"{decay}", max_train_steps=1, ema_decay=decay), pairs, pipeline)
        torch.testing.assert_close(flat(tmp_path / f"{decay}"), (1 - min(decay, 2 / 11)) * flat(tmp_path / "plain"))


def test_a_slow_average_of_a_short_run_is_not_mostly_its_start(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    pairs = random_pairs(4)
    train_adapter(small_config(tmp_path / "plain"), pairs, pipeline)
    train_adapter(small_config(tmp_path / "ema", ema_decay=0.999), pairs, pipeline)
    assert flat(tmp_path / "ema").norm() > 0.5 * flat(tmp_path / "plain").norm()


def test_an_interrupted_average_goes_on_exactly(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    settings: dict[str, Any] = {"ema_decay": 0.9, "validate_every": 2}
    pairs, held_out = random_pairs(5), random_pairs(3, seed=1)
    train_adapter(small_config(tmp_path / "whole", **settings), pairs, pipeline, held_out=held_out)

    def pull_plug(metrics: StepMetrics) -> None:
        if metrics.step == 3:
            raise RuntimeError

    config = small_config(tmp_path / "broken", **settings)
    with pytest.raises(RuntimeError):
        train_adapter(config, pairs, pipeline, pull_plug, held_out=held_out)
    train_adapter(replace(config, resume=True), pairs, pipeline, held_out=held_out)
    assert weights_in(tmp_path / "broken") == weights_in(tmp_path / "whole")


def test_held_out_accuracy_is_measured_and_written(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    config = small_config(tmp_path, max_train_steps=20, batch_size=8, beta_dpo=50.0, validate_every=10, log_every=5)
    result = train_adapter(config, random_pairs(8), pipeline, held_out=random_pairs(6, seed=5))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [row["step"] for row in rows] == ["5", "10", "15", "20"]
    assert [bool(row["held_out_accuracy"]) for row in rows] == [False, True, False, True]
    assert float(rows[-1]["held_out_accuracy"]) > 0.7  # the preferred ones are brighter there too
    assert result.metrics["held_out_accuracy"] > 0.7


@pytest.mark.parametrize("every", [2, 3])  # the last of 8 steps is one to validate at, or is not
def test_the_weights_with_the_best_held_out_accuracy_are_kept(
    tmp_path: Path, pipeline: StableDiffusionPipeline, every: int
) -> None:
    """What was learned is turned round before the last step: the best weights are earlier ones."""

    def turn_round(metrics: StepMetrics) -> None:
        if metrics.step == 7:
            with torch.no_grad():
                for name, weight in pipeline.unet.named_parameters():
                    weight.mul_(-1.0 if "lora_B" in name else 1.0)

    common: dict[str, Any] = {"batch_size": 8, "beta_dpo": 50.0, "validate_every": every, "role": "aligned"}
    config, held_out = small_config(tmp_path, max_train_steps=8, **common), random_pairs(6, seed=5)
    metrics = train_adapter(config, random_pairs(8), pipeline, turn_round, held_out=held_out).metrics
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    measured = {int(row["step"]): float(row["held_out_accuracy"]) for row in rows if row["held_out_accuracy"]}
    assert measured[8] < max(measured.values())
    assert metrics["held_out_accuracy"] == pytest.approx(max(measured.values()))
    assert measured[metrics["best_step"]] == max(measured.values())
    assert f"| held_out_accuracy | {metrics['held_out_accuracy']:.5g} |" in (tmp_path / "README.md").read_text()
    short = small_config(tmp_path / "short", max_train_steps=int(metrics["best_step"]), **common)
    train_adapter(short, random_pairs(8), pipeline)
    assert weights_in(tmp_path) == weights_in(tmp_path / "short")


@pytest.mark.parametrize(("role", "looks_at_prompts"), [("aligned", True), ("negative", False)])
def test_held_out_pairs_are_looked_at_on_the_branch_that_the_adapter_serves(
    tmp_path: Path, pipeline: StableDiffusionPipeline, role: str, looks_at_prompts: bool
) -> None:
    """A negative model answers the empty prompt, so what the captions say changes nothing that is measured of it."""
    measured = set()
    for prompt in PROMPTS:
        config = small_config(tmp_path / prompt, max_train_steps=2, validate_every=2, role=role)
        held_out = [replace(pair, prompt=prompt) for pair in random_pairs(3, seed=1)]
        train_adapter(config, random_pairs(4), pipeline, held_out=held_out)
        rows = list(csv.DictReader((tmp_path / prompt / "metrics.csv").open()))
        measured.add(rows[-1]["held_out_loss"])
    assert (len(measured) > 1) is looks_at_prompts


class Margins:
    """Stands for an objective that saw these margins, (pairs, draws)."""

    def __init__(self, margins: list[list[float]]) -> None:
        self._margins = torch.tensor(margins)

    def compare(self, first: int, last: int) -> Compared:
        pairs = len(self._margins)
        chosen = torch.arange(first, last) % pairs
        margin = self._margins[chosen, torch.arange(first, last) // pairs]
        return Compared(chosen, margin, margin, margin, margin)


def test_a_pair_is_right_by_the_mean_of_its_margins_and_half_right_where_that_is_zero(tmp_path: Path) -> None:
    """Three small wins and one large loss are a loss; the signs alone would say three quarters."""
    margins = [[0.1, 0.1, 0.1, -0.9], [0.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0], [-0.1, -0.1, -0.1, 0.9]]
    found = HeldOut(Margins(margins), len(margins)).measure(1, lambda: tiny_weights(1), tmp_path)
    assert found["held_out_accuracy"] == (0 + 0.5 + 1 + 1) / 4


def test_a_policy_that_is_still_the_reference_is_right_half_of_the_time(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    seen: list[StepMetrics] = []
    train_adapter(small_config(tmp_path, max_train_steps=1), random_pairs(4), pipeline, seen.append)
    assert seen[0].values["accuracy"] == 0.5


def test_what_a_step_reported_can_be_copied_and_pickled() -> None:
    metrics = StepMetrics(1, 2, {"loss": 0.5}, 3.0)
    assert copy.deepcopy(metrics) == pickle.loads(pickle.dumps(metrics)) == metrics


def test_training_stops_when_held_out_pairs_gain_nothing_more_and_keeps_the_best(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    """Held-out pairs that want the opposite get worse with every step, so the first validation is the best one."""
    pairs = random_pairs(8)
    common: dict[str, Any] = {"batch_size": 8, "beta_dpo": 50.0, "validate_every": 1, "role": "aligned"}
    stopping = small_config(tmp_path / "stopped", max_train_steps=30, early_stop=3, **common)
    result = train_adapter(stopping, pairs, pipeline, held_out=reverse_pairs(pairs))
    assert result.metrics["steps"] < 30
    best = int(result.metrics["best_step"])
    assert result.metrics["steps"] == best + 3
    train_adapter(small_config(tmp_path / "short", **{**common, "max_train_steps": best}), pairs, pipeline)
    assert weights_in(tmp_path / "stopped") == weights_in(tmp_path / "short")


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    config = small_config(tmp_path, max_train_steps=20, checkpoint_every=2, log_every=1, max_grad_norm=None)

    def spoil(metrics: StepMetrics) -> None:
        if metrics.step == 5:
            with torch.no_grad():
                next(p for p in pipeline.unet.parameters() if p.requires_grad).fill_(float("nan"))

    with pytest.raises(InputError, match=r"no longer a number .*\(step 4\) stays in"):
        train_adapter(config, random_pairs(4), pipeline, spoil)
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 4
    assert all(torch.isfinite(weight).all() for weight in kept["weights"])


@pytest.mark.parametrize("loss", ["hinge", "bounded"])
def test_reversed_pairs_find_the_reference_errors_of_the_first_run(
    tmp_path: Path, pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    pairs = random_pairs(5)
    shared: dict[str, Any] = {"share_reference": True, "cache_dir": tmp_path / "cache"}
    train_adapter(small_config(tmp_path / "dpo", **shared), pairs, pipeline)
    alone = train_adapter(small_config(tmp_path / "alone", loss=loss), reverse_pairs(pairs), pipeline)

    def never(*args: object) -> None:
        raise AssertionError("the reference ran again")

    monkeypatch.setattr("train.network.policy.Network.reference", never)
    config = small_config(tmp_path / "npo", loss=loss, beta_dpo=500.0, **shared)
    again = train_adapter(config, reverse_pairs(pairs), pipeline)
    torch.testing.assert_close(flat(again.adapter_path.parent), flat(alone.adapter_path.parent), rtol=1e-3, atol=1e-5)


def test_other_pairs_or_seeds_do_not_share_reference_errors(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    shared: dict[str, Any] = {"share_reference": True, "cache_dir": tmp_path / "cache", "max_train_steps": 1}
    train_adapter(small_config(tmp_path / "a", **shared), random_pairs(5), pipeline)
    train_adapter(small_config(tmp_path / "b", seed=1, **shared), random_pairs(5), pipeline)
    train_adapter(small_config(tmp_path / "c", **shared), random_pairs(5, seed=1), pipeline)
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 3


def test_through_guidance_on_given_pairs_pushes_the_negative_branch_where_reversal_does(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    """Where aligned is the base and the prompt empty, guided = reference + (1 - W) * (policy - reference): to first
    order the margin of given pairs through guidance is (W - 1) times that of reversed pairs without it."""
    nothing = LowRankWeights({name: replace(layer, scale=0.0) for name, layer in tiny_weights(1).layers.items()})
    pairs = [replace(pair, prompt="") for pair in random_pairs(6)]

    def moved(name: str, *, scale: float | None, backwards: bool) -> torch.Tensor:
        config = small_config(tmp_path / name, through_guidance=scale, max_train_steps=1, batch_size=6)
        given = reverse_pairs(pairs) if backwards else pairs
        train_adapter(config, given, pipeline, aligned=nothing)
        return flat(tmp_path / name)

    guided = moved("guided", scale=4.0, backwards=False)
    npo, dpo = moved("npo", scale=None, backwards=True), moved("dpo", scale=None, backwards=False)
    assert torch.nn.functional.cosine_similarity(guided, npo, dim=0) > 0.99
    assert torch.nn.functional.cosine_similarity(guided, dpo, dim=0) < -0.99


def test_one_network_with_both_signs_is_dpo_where_the_caption_is_kept_and_reversed_where_it_is_dropped(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    """Diff-SNPO: -log sigmoid of the margin with the prompt, and of minus the margin with the empty one."""
    pairs = random_pairs(6)

    def moved(name: str, given: list[PreferencePair], dropout: float, both_signs: bool) -> torch.Tensor:
        config = small_config(tmp_path / name, max_train_steps=1, batch_size=6, role="aligned", loss="bounded")
        train_adapter(replace(config, caption_dropout=dropout, both_signs=both_signs), given, pipeline)
        return flat(tmp_path / name)

    def alike(first: torch.Tensor, second: torch.Tensor) -> float:
        return float(torch.nn.functional.cosine_similarity(first, second, dim=0))

    dpo, npo = moved("dpo", pairs, 0.0, False), moved("npo", reverse_pairs(pairs), 1.0, False)
    assert torch.equal(moved("kept", pairs, 0.0, True), dpo)
    assert alike(moved("dropped", pairs, 1.0, True), npo) > 0.99
    both = moved("both", pairs, 0.5, True)
    assert all(alike(both, other) < 0.99 for other in (dpo, npo, moved("plain", pairs, 0.5, False)))


def test_one_network_with_both_signs_is_no_negative_model(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(InputError, match=r"train it with train\.dpo"):
        train_adapter(small_config(tmp_path, both_signs=True), random_pairs(4), pipeline)


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path, pipeline: StableDiffusionPipeline) -> None:
    """It knew fewer settings, and kept of the best weights the accuracy and the step alone."""
    settings: dict[str, Any] = {"validate_every": 2}
    pairs, held_out = random_pairs(5), random_pairs(3, seed=1)
    whole = train_adapter(small_config(tmp_path / "whole", **settings), pairs, pipeline, held_out=held_out)
    config = small_config(tmp_path / "old", **settings)
    train_adapter(replace(config, max_train_steps=4), pairs, pipeline, held_out=held_out)
    file = tmp_path / "old" / "checkpoint.pt"
    found = torch.load(file, weights_only=True)
    del found["identity"]["both_signs"], found["identity"]["prediction_type"]
    best = found["best"]
    found["best"] = (best["accuracy"], best["step"], best["weights"])
    torch.save(found, file)
    again = train_adapter(replace(config, resume=True), pairs, pipeline, held_out=held_out)
    assert again.metrics["history"] == whole.metrics["history"]


def test_training_through_guidance_starts_at_the_aligned_model_and_leaves_the_base_alone(tmp_path: Path) -> None:
    pipeline, seen = tiny_pipeline(), []
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    config = small_config(tmp_path, max_train_steps=1, through_guidance=4.0)
    train_adapter(config, random_pairs(4), pipeline, seen.append, aligned=tiny_weights(1))
    assert abs(seen[0].values["margin"]) < 1e-6
    assert seen[0].values["loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_it_stays(
    tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    """/dev/full fails every write with "no space left"; the checkpoint of step 2 was written before."""
    from train.engine import files

    def fill_disk(metrics: StepMetrics) -> None:
        if metrics.step == 3:
            patch.setattr(files.Path, "open", lambda *args, **kwargs: open("/dev/full", "wb"))  # noqa: SIM115

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match=r"No space left on device.*make room"):
        train_adapter(small_config(tmp_path), random_pairs(4), pipeline, fill_disk)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"label_smoothing": 0.5}, "The label smoothing is 0.5"),
        ({"through_guidance": 1.0}, "guidance scale to train through is 1.0"),
        ({"ema_decay": 1.0}, "The EMA decay is 1.0"),
        ({"early_stop": 2}, "give --validate-every too"),
        ({"timestep_sampling": "magic"}, "Unknown timestep sampling 'magic'"),
        ({"optimizer": "sgd"}, "Unknown optimizer 'sgd'; choose from adamw, adamw8bit."),
        ({"through_guidance": 4.0}, "needs the aligned model"),
    ],
)
def test_a_setting_out_of_range_gets_one_sentence(
    tmp_path: Path, pipeline: StableDiffusionPipeline, changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train_adapter(small_config(tmp_path, **changes), random_pairs(4), pipeline)
