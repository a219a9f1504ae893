"""Every rival of the negatives' benchmark trains, at tiny size, and its adapter can be measured."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks.negatives.__main__ import main
from benchmarks.negatives.rivals import RIVALS, Bench, protocol_flags
from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.generator import GenerationRequest, Generator
from tests.tiny import tiny_family
from tests.train.helpers import Brightness, random_pairs
from train import evaluate
from train.judging.protocol.command import contenders_of
from train.network.policy import Network

SETTINGS = {"batch_size": 2, "rank": 2, "device": "cpu", "mixed_precision": "no", "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def bench(tiny: ModelFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("benchmarks.negatives.rivals.WARM_UP_STEPS", 1)
    monkeypatch.setattr("benchmarks.negatives.rivals.TIMED_STEPS", 2)
    monkeypatch.setattr("benchmarks.negatives.rivals.REWARD_BATCH", 2)
    return Bench(tiny, tmp_path / "out", 3.0, random_pairs(6), random_pairs(6, seed=1), Brightness(), SETTINGS)


def test_a_slower_rival_gets_fewer_steps_and_what_was_trained_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = Network.reference

    def slow(network: Network, *inputs: object) -> object:
        time.sleep(1.0)
        return reference(network, *inputs)  # type: ignore[arg-type]

    first = bench.train("reversed")
    monkeypatch.setattr(Network, "reference", slow)
    bench.train("bounded")
    plan = json.loads((bench.out / "plan.json").read_text())
    assert plan["bounded"]["steps"] < plan["reversed"]["steps"]
    before = (first / "pytorch_lora_weights.safetensors").stat().st_mtime_ns
    assert bench.train("reversed") == first
    assert (first / "pytorch_lora_weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_every_rival_trains_and_paints_in_its_role(
    bench: Bench, tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bench, "_time", lambda bench, name: bench.seconds / 2)  # two steps, on any machine
    pictures = set()
    for name, rival in RIVALS.items():
        adapter = adapter_file(bench.train(name), rival.role)
        aligned = adapter if rival.role == "aligned" else adapter_file(bench.out / "aligned", "aligned")
        negative = adapter if rival.role == "negative" else None
        generator = Generator(tiny, aligned=aligned, negative=negative, device="cpu")
        variant = "aligned" if rival.role == "aligned" else "aligned_npo"
        request = GenerationRequest("a cat", variants=(variant,), alpha=1.0, beta=1.0)
        pictures.add(generator.generate(request).samples[0].media_sha256)
    assert len(pictures) == len(RIVALS)
    options = evaluate.build_parser().parse_args(["--prompts", "x", "--protocol", *protocol_flags(bench.out)])
    contenders = {each.name: each for each in contenders_of(options, tiny)}
    assert {name for name in RIVALS if name not in ("aligned", "reversed")} < contenders.keys()
    guided = contenders["through_guidance"]
    assert (guided.alphas, guided.betas) == ((tiny.alpha,), (tiny.beta,))
    assert len(contenders["bounded"].betas) > 1


def test_wrong_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--pairs", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "There are no pairs in" in capsys.readouterr().err
