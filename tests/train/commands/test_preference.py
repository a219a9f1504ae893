"""train.npo and train.dpo as a person runs them, on a tiny real family and a real database."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

import train.dpo
import train.npo
import train.self_npo
from collection.__main__ import main as collection_main
from collection.store import Store
from collection.types import AdapterRecord
from npo_core.catalog import families
from npo_core.catalog.adapter_files import adapter_file, locate_adapter
from npo_core.catalog.families import ModelFamily
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image, sha256_file
from npo_core.sampling.pipelines import load_pipeline
from npo_core.weights import save_adapter
from tests.collection.helpers import cast, open_store
from tests.collection.study_helpers import make_study
from tests.tiny import tiny_family, tiny_weights
from tests.train.helpers import Brightness, small_config, vote_in_store, weights_in
from train.commands.preference import default_steps
from train.engine.loop import train_adapter
from train.engine.run import Run
from train.judging.scorers import SCORERS
from train.network.aligned import adapter_in_use
from train.network.policy import hash_weights
from train.pairs.pairs import from_store

FLAGS = ("--family --database-url --output-dir --max-train-steps --loss --beta-dpo --rank --learning-rate --seed "
         "--resume --dry-run --from-db --dataset --mixed-precision --targets --min-pairs")  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(autouse=True)
def known(tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, tiny)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path) as opened:
        yield opened


def arguments(tmp_path: Path, *more: str) -> list[str]:
    where = f"--from-db --family tiny --database-url sqlite:///{tmp_path}/npo.db --data-dir {tmp_path}/data"
    how = "--max-train-steps 3 --batch-size 4 --rank 2 --min-pairs 3 --device cpu"
    return [*where.split(), *how.split(), *more]


class PulledPlugError(Exception):
    """Stands for a fault in the middle of a run."""


def pull_plug_at(step: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] = KeyboardInterrupt) -> None:
    """The next runs end with `error` when they come to `step`."""
    whole = Run._train_step

    def until(run: Run) -> Tensor:
        if run.step == step:
            raise error("the plug was pulled")
        return whole(run)

    monkeypatch.setattr(Run, "_train_step", until)


def test_npo_trains_on_the_picks_and_registers_the_negative_adapter(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrltb")
    assert train.npo.main(arguments(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "3 pairs on 3 prompts, reversed" in said
    assert "Left out: 1 tie, 1 both_bad" in said
    assert "examples/s" in said
    assert said.count("Speed: on cpu nothing is chosen, only what was asked for.\n") == 1
    (adapter,) = store.adapters("tiny", "negative")
    assert adapter.name.startswith("NPO from 3 picks, ")
    assert Path(adapter.path).is_file()
    assert adapter.training_run_id is not None
    run = store.get_training_run(adapter.training_run_id)
    assert (run.status, run.role, len(run.vote_ids)) == ("finished", "negative", 3)
    assert run.metrics["steps"] == 3
    sources = json.loads((Path(adapter.path).parent / "provenance.json").read_text())["sources"]
    assert sources == list(run.vote_ids)


def test_dpo_registers_the_aligned_adapter_and_learns_the_other_way(
    tmp_path: Path, tiny: ModelFamily, store: Store
) -> None:
    vote_in_store(store, tiny, "lrl")
    assert train.dpo.main(arguments(tmp_path, "--output-dir", str(tmp_path / "dpo"))) == 0
    assert train.npo.main(arguments(tmp_path, "--output-dir", str(tmp_path / "npo"))) == 0
    assert len(store.adapters("tiny", "aligned")) == len(store.adapters("tiny", "negative")) == 1
    assert weights_in(tmp_path / "dpo") != weights_in(tmp_path / "npo")


def test_dpo_after_swapping_every_vote_gives_the_weights_of_npo(
    tmp_path: Path, tiny: ModelFamily, store: Store
) -> None:
    vote_in_store(store, tiny, "lrl")
    assert train.npo.main(arguments(tmp_path, "--output-dir", str(tmp_path / "npo"))) == 0
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    with open_store(swapped) as other:
        vote_in_store(other, tiny, "rlr")
    assert train.dpo.main(arguments(swapped, "--output-dir", str(tmp_path / "dpo"))) == 0
    assert weights_in(tmp_path / "dpo") == weights_in(tmp_path / "npo")


def test_too_few_picks_says_how_many_there_are_and_how_many_it_wants(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrt")
    assert train.npo.main(arguments(tmp_path, "--min-pairs", "20")) == 2
    assert capsys.readouterr().err == (
        "error: There are 2 usable picks for tiny and training wants 20; collect 18 more or lower --min-pairs.\n"
    )


def test_a_dry_run_says_what_it_would_train_on_and_leaves_nothing(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrltts")
    assert train.npo.main(arguments(tmp_path, "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "3 pairs" in said
    assert "2 tie, 1 skip" in said.replace("1 skip, 2 tie", "2 tie, 1 skip")
    assert "3 steps of 4 pairs" in said
    assert store.adapters() == []
    assert not (tmp_path / "data" / "adapters").exists()


def test_an_interrupted_run_goes_on_with_the_picks_it_began_with(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")
    there = ("--output-dir", str(tmp_path / "out"))
    assert train.npo.main(arguments(tmp_path, *there, "--max-train-steps", "2", "--resume")) == 0
    assert capsys.readouterr().out.count(f"No checkpoint in {tmp_path / 'out'}: starting from the first step.\n") == 1
    vote_in_store(store, tiny, "llll")  # more picks arrive before it goes on
    assert train.npo.main(arguments(tmp_path, *there, "--max-train-steps", "4", "--resume")) == 0
    assert len(json.loads((tmp_path / "out" / "provenance.json").read_text())["sources"]) == 3
    newest, first = store.adapters("tiny", "negative")
    assert newest.sha256 != first.sha256
    assert train.npo.main(arguments(tmp_path, *there, "--max-train-steps", "4", "--resume")) == 0  # nothing left to do


def put_to_use(store: Store, folder: Path, seed: int) -> AdapterRecord:
    """A random aligned LoRA, as if it were trained and promoted."""
    file = save_adapter(tiny_weights(seed), folder)
    return store.register_adapter(AdapterRecord("tiny", "aligned", folder.name, str(file), sha256_file(file)))


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

    grid = np.asarray(Image.open(tmp_path / "out" / "validation" / "step_000003.png"))[:64, :64].astype(int)
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


def test_an_interrupted_run_goes_on_with_its_held_out_pairs(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """8 of the 24 picks are held out: more picks that arrive meanwhile change neither side."""
    vote_in_store(store, tiny, "lr" * 12)
    flags = "--min-pairs 20 --held-out 0.5 --validate-every 2 --checkpoint-every 2 --max-train-steps 6"
    how = flags.split()
    assert train.npo.main(arguments(tmp_path, "--output-dir", str(tmp_path / "whole"), *how)) == 0
    there = ("--output-dir", str(tmp_path / "broken"))
    with pytest.MonkeyPatch.context() as patch:
        pull_plug_at(5, patch)
        assert train.npo.main(arguments(tmp_path, *there, *how)) == 130
    vote_in_store(store, tiny, "lll")
    capsys.readouterr()
    assert train.npo.main(arguments(tmp_path, *there, *how, "--resume")) == 0
    said = capsys.readouterr().out
    assert "16 pairs on 2 prompts" in said
    assert "Held out: 8 pairs" in said
    assert weights_in(tmp_path / "broken") == weights_in(tmp_path / "whole")
    rows = [list(csv.DictReader((tmp_path / name / "metrics.csv").open())) for name in ("broken", "whole")]
    measured = [[(row["step"], row["held_out_accuracy"]) for row in each] for each in rows]
    assert measured[0] == measured[1]
    assert all(accuracy for _, accuracy in measured[0])


def test_a_run_whose_records_name_no_held_out_pairs_goes_on(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """As earlier versions left them: fewer picks than --min-pairs are enough for a run that began with more."""
    vote_in_store(store, tiny, "lr" * 6)
    how = ["--min-pairs", "12", "--held-out", "0.5", "--validate-every", "2", "--max-train-steps", "4"]
    there = ("--output-dir", str(tmp_path / "out"))
    with pytest.MonkeyPatch.context() as patch:
        pull_plug_at(3, patch)
        assert train.npo.main(arguments(tmp_path, *there, *how, "--checkpoint-every", "2")) == 130
    records = tmp_path / "out" / "provenance.json"
    older = json.loads(records.read_text())
    assert len(older["held_out_sources"]) == 4
    del older["held_out_sources"]
    records.write_text(json.dumps(older))
    capsys.readouterr()
    assert train.npo.main(arguments(tmp_path, *there, *how, "--resume")) == 0
    assert "Which pairs were held out was not written down" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["steps"] == 4
    assert "held_out_accuracy" not in metrics


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--family", "dragon"], "Unknown family 'dragon'"),
        (["--loss", "magic"], "Unknown loss 'magic'"),
        (["--rank", "0"], "The rank is 0"),
        (["--seed", "-3"], "The seed is -3"),
        (["--max-train-steps", "0"], "The number of training steps is 0"),
        (["--min-pairs", "0"], "The least number of pairs is 0"),
        (["--resume"], "give its folder with --output-dir"),
        (["--early-stop", "2", "--validate-every", "1"], "there are none; give --held-out SHARE"),
        (["--output-dir", "/proc/nowhere"], "cannot be written"),
        (["--database-url", "sqlite:////proc/no/npo.db"], "/proc/no/npo.db"),
        (["--database-url", "mystery://x"], "mystery"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_status_2(
    tmp_path: Path,
    tiny: ModelFamily,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    sentence: str,
) -> None:
    vote_in_store(store, tiny, "lll")
    assert train.npo.main(arguments(tmp_path, *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1


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


def test_a_share_that_holds_everything_back_is_one_sentence(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")
    assert train.npo.main(arguments(tmp_path, "--held-out", "0.99")) == 2
    assert capsys.readouterr().err == (
        "error: --held-out 0.99 holds back every pair (3, of 3 prompts) and leaves none to train on; give a smaller "
        "share, or collect picks on more prompts.\n"
    )


def test_a_study_without_enough_picks_is_named(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")  # in no study
    make_study(store, name="spring")
    make_study(store, name="summer")
    vote_in_store(store, tiny, "lr", study="summer")
    for study, sentence in {
        "autumn": "There is no study 'autumn'; `python -m collection study list` shows them.",
        "spring": "In the study 'spring' nobody has voted on tiny in modality image; collect picks there, or leave",
        "summer": "The study 'summer' has 2 usable picks for tiny and training wants 3; collect 1 more in it, lower",
    }.items():
        assert train.npo.main(arguments(tmp_path, "--study", study)) == 2
        assert capsys.readouterr().err.startswith(f"error: {sentence}")


def test_a_finished_adapter_is_not_overwritten(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lll")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pytorch_lora_weights.safetensors").write_bytes(b"precious")
    assert train.npo.main(arguments(tmp_path, "--output-dir", str(tmp_path / "out"))) == 2
    assert "already holds an adapter" in capsys.readouterr().err


@pytest.mark.parametrize("error", [PulledPlugError, KeyboardInterrupt])
def test_a_training_that_fails_midway_is_noted(
    tmp_path: Path,
    tiny: ModelFamily,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
) -> None:
    vote_in_store(store, tiny, "lll")
    pull_plug_at(2, monkeypatch, error)
    there = str(tmp_path / "out")
    if error is KeyboardInterrupt:
        assert train.npo.main(arguments(tmp_path, "--output-dir", there)) == 130
        assert f"Interrupted; go on with --resume --output-dir {there}" in capsys.readouterr().err
    else:
        with pytest.raises(error):
            train.npo.main(arguments(tmp_path, "--output-dir", there))
    (run,) = store.training_runs("tiny", "negative")
    assert (run.status, run.metrics, len(run.vote_ids)) == ("failed", {"error": "the plug was pulled"}, 3)
    assert store.adapters() == []
    assert not (tmp_path / "out" / "pytorch_lora_weights.safetensors").exists()


def test_picks_of_one_person_train_and_are_said_to_be_one_person_s(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "lrl")
    assert train.npo.main(arguments(tmp_path, "--min-votes", "2")) == 2
    assert capsys.readouterr().err == (
        "error: All votes on tiny are of one person and 2 votes a pair were asked for; ask others to vote, or lower "
        "--min-votes.\n"
    )
    remark = "All picks are of one person: this adapter will learn that person's taste."
    assert train.npo.main(arguments(tmp_path)) == 0
    assert remark in capsys.readouterr().out
    (adapter,) = store.adapters("tiny", "negative")
    assert "trained on 3 preference pairs from 3 votes (" in (Path(adapter.path).parent / "README.md").read_text()
    first, second, _ = (made.id for made in store.comparison("comparison 0"))
    assert first is not None
    assert second is not None
    cast(store, store.create_participant(), first, second, "left")
    assert train.npo.main(arguments(tmp_path, "--output-dir", str(tmp_path / "two"))) == 0
    assert remark not in capsys.readouterr().out
    assert "trained on 3 preference pairs from 4 votes (" in (tmp_path / "two" / "README.md").read_text()


@pytest.mark.parametrize("command", [train.npo, train.dpo])
def test_help_names_every_flag(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    said = capsys.readouterr().out
    for flag in FLAGS.split():
        assert re.search(rf"{flag}\b", said), flag


def test_without_a_source_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.npo.main([])
    assert stopped.value.code == 2
    assert "--from-db" in capsys.readouterr().err


def test_the_default_number_of_steps_follows_the_number_of_picks() -> None:
    assert default_steps(24, 16) == 60
    assert default_steps(100, 16) == 100
    assert default_steps(10_000, 16) == 1000


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
