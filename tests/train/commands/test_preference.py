"""train.npo and train.dpo as a person runs them, on a tiny real family and a real database."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

import train.dpo
import train.npo
import train.self_npo
from collection.store import Store
from npo_core.catalog.families import ModelFamily
from tests.collection.helpers import cast, open_store
from tests.collection.study_helpers import make_study
from tests.train.commands.helpers import arguments
from tests.train.helpers import vote_in_store, weights_in
from train.commands.preference import default_steps

FLAGS = ("--family --database-url --output-dir --max-train-steps --loss --beta-dpo --rank --learning-rate --seed "
         "--resume --dry-run --from-db --dataset --mixed-precision --targets --min-pairs")  # fmt: skip


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
