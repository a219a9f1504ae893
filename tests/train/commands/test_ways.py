"""Other ways to train than on reversed pairs: beside the aligned model, with both signs, on a part of the noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import train.dpo
import train.npo
import train.self_npo
from collection.__main__ import main as collection_main
from collection.store import Store
from npo_core.catalog.adapter_files import adapter_file, locate_adapter
from npo_core.catalog.families import ModelFamily
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image, sha256_file
from npo_core.sampling.pipelines import load_pipeline
from tests.tiny import tiny_weights
from tests.train.commands.helpers import arguments, put_to_use
from tests.train.helpers import Brightness, small_config, vote_in_store, weights_in
from train.engine.loop import train_adapter
from train.judging.scorers import SCORERS
from train.network.aligned import adapter_in_use
from train.network.policy import hash_weights
from train.pairs.pairs import from_store


def test_through_guidance_trains_beside_the_aligned_model_in_use_and_says_so(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")
    in_use = put_to_use(store, tmp_path / "ours", 7)
    guided = "--through-guidance 4 --validate-every 3 --learning-rate 0.01 --mixed-precision no"
    assert train.npo.main(arguments(tmp_path, *guided.split(), "--output-dir", str(tmp_path / "out"))) == 0
    assert f"The aligned model beside it is {in_use.id}" in capsys.readouterr().out
    pairs = from_store(store, "tiny").pairs
    by_hand = small_config(tmp_path / "hand", max_train_steps=3, through_guidance=4.0)
    train_adapter(by_hand, pairs, tiny, aligned=tiny_weights(7))
    assert weights_in(tmp_path / "out") == weights_in(tmp_path / "hand")

    made = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert (made["aligned_id"], made["aligned_sha256"]) == (in_use.id, in_use.sha256)
    base = hash_weights(load_pipeline(tiny).unet)
    assert made["base_unet_sha256"] == base
    assert f"Base UNet sha256 `{base}`" in (tmp_path / "out" / "README.md").read_text()

    grid = np.asarray(Image.open(tmp_path / "out" / "validation" / "step_000003.png"))[4:68, 4:68].astype(int)
    for aligned, least, most in ((adapter_file(in_use.path, "aligned"), 0, 2), (None, 20, 255)):  # None: the family's
        generator = Generator(tiny, aligned=aligned, device="cpu")
        drawn = generator.generate(GenerationRequest(pairs[0].prompt, seed=0, variants=("aligned",)))
        assert least <= np.abs(grid - np.asarray(open_image(drawn.samples[0].media))).max() <= most

    (negative,) = store.adapters("tiny", "negative")
    lineage = store.lineage(str(negative.id))
    assert lineage.run is not None
    assert lineage.run.config["aligned_id"] == in_use.id
    where = ["--database-url", f"sqlite:///{tmp_path}/npo.db", "--data-dir", str(tmp_path / "data")]
    assert collection_main(["adapters", "lineage", str(negative.id), *where]) == 0
    assert f"aligned model {in_use.id} (sha256 {in_use.sha256})" in capsys.readouterr().out


def test_an_aligned_version_that_is_gone_or_taken_back_is_passed_over(
    tmp_path: Path, tiny: ModelFamily, store: Store
) -> None:
    def beside(modality: str = "image") -> str | None:
        found = adapter_in_use("aligned", tiny, store, modality)
        return found and found.id

    assert beside() == "tiny-aligned"
    first, second = (put_to_use(store, tmp_path / name, seed) for seed, name in enumerate(("first", "second")))
    assert (beside(), beside("video")) == (second.id, "tiny-aligned")
    Path(second.path).unlink()
    assert beside() == first.id
    Path(first.path).unlink()
    assert beside() == "tiny-aligned"
    assert adapter_in_use("aligned", replace(tiny, aligned=None), store) is None
    third = put_to_use(store, tmp_path / "third", 3)
    assert beside() == third.id
    store.roll_back("tiny", "aligned")
    assert beside() == "tiny-aligned"


@pytest.mark.parametrize("command", [train.npo, train.self_npo])
def test_runs_that_follow_no_picks_keep_the_base_s_hash_through_guidance(
    tmp_path: Path, tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch, command: ModuleType
) -> None:
    """The reward's gradient beside the family's own aligned model; self-NPO, which stands beside none."""
    monkeypatch.setitem(SCORERS, "brightness", lambda family: Brightness())
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    where = f"--family tiny --data-dir {tmp_path}/data --output-dir {tmp_path}/out --prompts {tmp_path}/prompts.txt"
    how = "--max-train-steps 1 --batch-size 2 --rank 2 --device cpu"
    reward = "--reward brightness --reward-gradient --through-guidance 3" if command is train.npo else ""
    assert command.main([*where.split(), *how.split(), *reward.split()]) == 0
    made = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert made["base_unet_sha256"] == hash_weights(load_pipeline(tiny).unet)
    assert made.get("aligned_id") == ("tiny-aligned" if reward else None)
    assert made.get("aligned_sha256") == (sha256_file(locate_adapter(str(tiny.aligned))) if reward else None)


def test_the_aligned_model_is_not_trained_through_guidance(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be the negative branch that is trained, and put to use as the aligned model."""
    vote_in_store(store, tiny, "lll")
    assert train.dpo.main(arguments(tmp_path, "--through-guidance", "4")) == 2
    assert capsys.readouterr().err == (
        "error: What is trained through guidance is the negative model; leave --through-guidance out.\n"
    )
    assert store.adapters() == []


def test_one_network_with_both_signs_is_trained_by_dpo_alone(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")
    assert train.dpo.main(arguments(tmp_path, "--both-signs", "--output-dir", str(tmp_path / "out"))) == 0
    assert "as picked with their prompts, reversed without" in capsys.readouterr().out
    assert "# Diff-SNPO adapter for tiny" in (tmp_path / "out" / "README.md").read_text()
    assert train.npo.main(arguments(tmp_path, "--both-signs")) == 2
    assert "train it with train.dpo" in capsys.readouterr().err


def test_a_part_of_the_noise_alone_is_trained_where_that_is_asked_for(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")
    for name, flags in (("all", ""), ("noisy", "--timestep-range 0.5 1"), ("clean", "--timestep-range 0 0.5")):
        there = ("--output-dir", str(tmp_path / name), *flags.split())
        assert train.npo.main(arguments(tmp_path, *there)) == 0
    made = [weights_in(tmp_path / name) for name in ("all", "noisy", "clean")]
    assert all(made.count(one) == 1 for one in made)
    assert json.loads((tmp_path / "noisy" / "config.json").read_text())["timestep_range"] == [0.5, 1.0]
    assert train.npo.main(arguments(tmp_path, "--timestep-range", "1", "0.5")) == 2
    assert "The timestep range is 1.0 to 0.5" in capsys.readouterr().err
