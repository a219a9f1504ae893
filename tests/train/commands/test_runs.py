"""Runs of train.npo and train.dpo that stop, go on, or find what is there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import train.dpo
import train.npo
import train.self_npo
from collection.store import Store
from npo_core.catalog.families import ModelFamily
from tests.train.commands.helpers import PulledPlugError, arguments, pull_plug_at
from tests.train.helpers import vote_in_store, weights_in


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
