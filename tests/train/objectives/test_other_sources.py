"""Negatives without votes: truncated samples, ranked pairs, and the gradient of a reward; on a tiny real family."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train.dpo
import train.npo
import train.self_npo
from collection.store import Store
from npo_core.catalog import families
from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.families import ModelFamily, build_scheduler
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.sampling.pipelines import load_pipeline
from npo_core.weights import load_adapter
from tests.tiny import tiny_family, tiny_scheduler
from tests.train.helpers import Brightness, small_config, weights_in
from train.commands import sources
from train.judging import scorers
from train.network.policy import Network
from train.network.schedule import DdimPath, seeded_noise
from train.objectives.reward import train_on_reward
from train.pairs.pairs import hash_pairs, reverse_pairs
from train.pairs.ranking import rank_pairs

PROMPTS = ["a cat", "a dog", "a red apple"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS) + "\n")
    return file


@pytest.fixture(autouse=True)
def known(tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, tiny)
    monkeypatch.setitem(scorers.SCORERS, "brightness", lambda family: Brightness())


def test_the_scorer_s_favourite_is_the_preferred_picture(tiny: ModelFamily) -> None:
    generator = Generator(replace(tiny, aligned=None, negative=None), device="cpu")
    found = rank_pairs(generator, Brightness(), PROMPTS, samples_per_prompt=4, margin=0.0)
    assert len(found.pairs) == 2 * len(PROMPTS)
    drawn = [generator.generate(GenerationRequest(PROMPTS[0], seed=seed, variants=("base",))) for seed in range(4)]
    bright = [np.asarray(open_image(each.samples[0].media)).mean() for each in drawn]
    np.testing.assert_allclose(found.pairs[0].preferred, drawn[int(np.argmax(bright))].samples[0].latents, atol=1e-2)
    np.testing.assert_allclose(found.pairs[0].rejected, drawn[int(np.argmin(bright))].samples[0].latents, atol=1e-2)
    unsure = rank_pairs(generator, Brightness(), PROMPTS, samples_per_prompt=4, margin=10.0)
    assert unsure.pairs == []
    assert unsure.dropped == {"too close to call": 6}


def test_ddim_is_what_the_pipeline_samples(tiny: ModelFamily) -> None:
    pipeline = load_pipeline(tiny)
    noise = seeded_noise([5], (4, 8, 8), torch.device("cpu"))
    text = pipeline.encode_prompt("a cat", "cpu", 1, False)[0]

    def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
        return pipeline.unet(noisy, timestep, text).sample

    path = DdimPath(pipeline.scheduler.config, 4, torch.device("cpu"))
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        _, ours = path.walk(predict, noise, 4)
    theirs = pipeline("a cat", num_inference_steps=4, guidance_scale=1.0, latents=noise, output_type="latent").images
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("role", "scale", "rises"), [("aligned", None, True), ("negative", None, False), ("negative", 3.0, True)]
)
def test_following_the_reward_moves_it_where_the_role_says(
    tmp_path: Path, tiny: ModelFamily, role: str, scale: float | None, rises: bool
) -> None:
    """Turned round for the negative model; through guidance the guided picture gets better as the negative worsens."""
    aligned = load_adapter(tiny.aligned) if scale and tiny.aligned else None
    config = small_config(
        tmp_path, role=role, through_guidance=scale, max_train_steps=8, learning_rate=3e-3, log_every=1, batch_size=3
    )
    result = train_on_reward(config, tiny, PROMPTS, Brightness(), aligned)
    rewards = [row["reward"] for row in result.metrics["history"]]
    assert (np.mean(rewards[-3:]) > np.mean(rewards[:3])) == rises
    turned = ", turned round" if role == "negative" and scale is None else ""
    papers = "2304.05977 and 2505.11245" if role == "negative" else "2304.05977"
    card = (tmp_path / "README.md").read_text()
    assert "# Reward-gradient adapter for tiny" in card
    assert (
        f"trained on 3 prompts by the gradient of a reward{turned}, without any votes (after arXiv {papers})." in card
    )
    assert not re.search(r"pairs|preferences|\| loss \||beta_dpo", card)


def trained_on_reward(folder: Path, family: ModelFamily, **changes: Any) -> list[tuple[str, bytes, bytes, float]]:
    settings: dict[str, Any] = {"role": "aligned", "max_train_steps": 2, "batch_size": 3, "timestep_range": (0.0, 0.25)}
    train_on_reward(small_config(folder, **(settings | changes)), family, PROMPTS, Brightness(), None)
    return weights_in(folder)


@pytest.mark.parametrize(
    "changes", [{"caption_dropout": 1.0}, {"timestep_range": (0.5, 1.0)}, {"timestep_sampling": "high_noise"}]
)
def test_the_reward_s_gradient_is_followed_where_the_settings_say(
    tmp_path: Path, tiny: ModelFamily, changes: dict[str, Any]
) -> None:
    """Each of these settings was taken by the command line and changed nothing."""
    plain = {"timestep_range": (0.0, 1.0)} if "timestep_sampling" in changes else {}
    assert trained_on_reward(tmp_path / "a", tiny, **plain) != trained_on_reward(
        tmp_path / "b", tiny, **plain, **changes
    )


def test_the_reward_s_gradient_comes_from_the_steps_in_the_range(tiny: ModelFamily, tmp_path: Path) -> None:
    """The network is asked with a gradient once a step, at the sampled timesteps nearest to those in the range."""
    asked: list[Tensor] = []
    policy = Network.policy

    def listening(network: Network, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        if torch.is_grad_enabled():
            asked.append(timesteps)
        return policy(network, noisy, timesteps, conditioning)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "policy", listening)
        trained_on_reward(tmp_path / "all", tiny, timestep_range=(0.0, 1.0), max_train_steps=6)
    seen = torch.cat(asked)
    assert len(asked) == 6
    assert set((seen + 1).tolist()) <= set(range(100, 1001, 100))  # ten steps of sampling
    assert len(seen.unique()) > 4


def test_a_caller_s_vae_stays_where_and_as_it_was(tiny: ModelFamily, tmp_path: Path) -> None:
    pipeline = load_pipeline(tiny)
    before = [(parameter.data_ptr(), parameter.requires_grad) for parameter in pipeline.vae.parameters()]
    assert any(trainable for _, trainable in before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.objectives.reward.load_pipeline", lambda family: pipeline)
        trained_on_reward(tmp_path, tiny)
    assert [(parameter.data_ptr(), parameter.requires_grad) for parameter in pipeline.vae.parameters()] == before


def test_latents_are_not_clipped_where_the_schedule_s_configuration_says_nothing_of_it(tiny: ModelFamily) -> None:
    """Another scheduler's configuration has no clip_sample, and DDIM's own default is for pixels."""
    config = {name: value for name, value in tiny_scheduler("sample").config.items() if name != "clip_sample"}
    path = DdimPath(config, 2, torch.device("cpu"))
    far = torch.full((1, 4, 8, 8), 3.0)
    _, expected = path.walk(lambda noisy, timestep: far, torch.randn(1, 4, 8, 8), 2)
    torch.testing.assert_close(expected, far)
    assert build_scheduler("ddim", config).config.clip_sample is False


def test_pairs_are_drawn_on_policy_from_what_is_in_use(
    tmp_path: Path,
    tiny: ModelFamily,
    prompts: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The best and the worst of 16 pictures of each prompt, by the adapters that were put to use last."""
    monkeypatch.setattr(sources, "ON_POLICY_SEEDS", 4)
    where = f"--family tiny --data-dir {tmp_path}/data --database-url sqlite:///{tmp_path}/npo.db --register"
    how = "--max-train-steps 1 --batch-size 2 --rank 2 --device cpu --min-pairs 1 --reward brightness --reward-margin 0"
    arguments = [*where.split(), *how.split(), "--on-policy", "--prompts", str(prompts)]
    assert train.npo.main([*arguments, "--output-dir", str(tmp_path / "first")]) == 0
    assert "3 pairs on 3 prompts" in capsys.readouterr().out
    drawn = Generator(tiny, negative=adapter_file(tmp_path / "first", "negative"), device="cpu")
    found = rank_pairs(drawn, Brightness(), PROMPTS, variant="aligned_npo", most_pairs=1, margin=0.0)
    assert train.npo.main([*arguments, "--output-dir", str(tmp_path / "second")]) == 0
    provenance = json.loads((tmp_path / "second" / "provenance.json").read_text())
    assert provenance["pairs_sha256"] == hash_pairs(reverse_pairs(found.pairs))
    assert train.npo.main([*arguments, "--reward-gradient"]) == 2
    assert "leave --reward-gradient out" in capsys.readouterr().err


def test_self_npo_trains_on_its_own_attempts_and_registers_on_request(
    tmp_path: Path, tiny: ModelFamily, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"--family tiny --data-dir {tmp_path}/data --database-url sqlite:///{tmp_path}/npo.db --register"
    how = "--max-train-steps 4 --batch-size 2 --rank 2 --device cpu --sampling-steps 2"
    assert train.self_npo.main(["--prompts", str(prompts), *where.split(), *how.split()]) == 0
    assert "2 pictures each at guidance 4; the teacher is a moving average with decay 0.999" in capsys.readouterr().out
    with Store(f"sqlite:///{tmp_path}/npo.db", tmp_path / "data") as store:
        (adapter,) = store.adapters("tiny", "negative")
    assert adapter.name.startswith("Self-NPO from 3 prompts")
    card = (Path(adapter.path).parent / "README.md").read_text()
    assert "# Self-NPO adapter for tiny" in card
    assert "trained on its own short attempts at 6 pictures that the base drew of 3 prompts, without any votes" in card
    assert "| pictures | 6 |" in card
    assert not re.search(r"pairs|preferences|2505.11245|\| loss \||beta_dpo", card)
    assert load_adapter(adapter.path).layers


@pytest.mark.parametrize(
    "flag", ["--loss hinge", "--beta-dpo 7", "--through-guidance 4", "--modality video", "--early-stop 2"]
)
def test_self_npo_takes_no_flag_that_it_would_ignore(
    prompts: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.self_npo.main(["--family", "tiny", "--prompts", str(prompts), "--dry-run", *flag.split()])
    assert stopped.value.code == 2
    assert f"unrecognized arguments: {flag}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [train.npo, train.dpo])
def test_the_command_trains_on_pairs_that_a_scorer_ranked(
    tmp_path: Path, tiny: ModelFamily, prompts: Path, capsys: pytest.CaptureFixture[str], command: object
) -> None:
    flags = f"--family tiny --data-dir {tmp_path}/data --output-dir {tmp_path}/out --reward brightness --min-pairs 1"
    how = "--reward-margin 0 --max-train-steps 2 --batch-size 2 --rank 2 --device cpu"
    assert command.main([*flags.split(), "--prompts", str(prompts), *how.split()]) == 0  # type: ignore[attr-defined]
    assert "6 pairs on 3 prompts" in capsys.readouterr().out
    assert "trained on 6 preference pairs (Diffusion-" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("scorer", "status", "sentence"), [("hpsv2", 0, "NPO for Tiny: "), ("pickscore", 2, "There are 0 usable picks")]
)
def test_how_close_is_too_close_to_call_depends_on_the_scorer(
    tmp_path: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scorer: str,
    status: int,
    sentence: str,
) -> None:
    """Differences that order a pair for one scorer by default are nothing for another, in whose unit they are small."""
    monkeypatch.setitem(scorers.SCORERS, scorer, lambda family: Brightness())
    flags = f"--family tiny --data-dir {tmp_path}/data --output-dir {tmp_path}/out --reward {scorer} --min-pairs 1"
    assert train.npo.main([*flags.split(), "--prompts", str(prompts), "--dry-run", "--device", "cpu"]) == status
    said = capsys.readouterr()
    assert sentence in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--reward brightness", "give --prompts FILE"),
        ("--reward magic --prompts PROMPTS", "Unknown scorer 'magic'; choose from emoji, jury, pickscore"),
        ("--reward emoji --prompts PROMPTS", "has no scorer"),
        ("--reward brightness --prompts /nowhere.txt", "cannot be read"),
        ("--reward hpsv2 --prompts PROMPTS", "needs the package hpsv2"),
        ("--from-db --reward-gradient", "give --reward too"),
        *(
            (f"--reward brightness --reward-gradient --prompts PROMPTS {flag}", f"{flag.split()[0]} is about pairs and")
            for flag in (
                "--loss hinge",
                "--beta-dpo 7",
                "--label-smoothing 0.1",
                "--share-reference",
                "--held-out 0.2",
                "--early-stop 2 --validate-every 1",
                "--pair-weights prompt",
            )
        ),
    ],
)
def test_bad_input_gets_one_sentence(
    tmp_path: Path, prompts: Path, capsys: pytest.CaptureFixture[str], arguments: str, sentence: str
) -> None:
    where = f"--family tiny --data-dir {tmp_path}/data --output-dir {tmp_path}/out --device cpu"
    assert train.npo.main([*arguments.replace("PROMPTS", str(prompts)).split(), *where.split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
