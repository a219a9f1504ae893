"""The loss on the guided prediction at shares of its own, in the trainer, in the file, and in what the app does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train.npo
from npo_core.catalog import families
from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.weights import LowRankWeights, load_adapter
from npo_core.weights.full import merged
from service.generation.adapters_in_use import AdapterShelf
from tests.collection.helpers import open_store
from tests.tiny import tiny_family, tiny_pipeline, tiny_weights
from tests.train.helpers import Brightness, random_pairs, small_config, vote_in_store
from train.engine.loop import train_adapter
from train.judging.scorers import SCORERS
from train.network.policy import Network

ALPHA, BETA = 0.5, 2.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


def with_weights(*shares: tuple[LowRankWeights, float]) -> Any:
    """A fresh tiny UNet with so much of each of these weights merged into it."""
    unet = tiny_pipeline().unet
    for weights, share in shares:
        scaled = {n: replace(layer, scale=layer.scale * share) for n, layer in weights.layers.items()}
        unet.load_state_dict(merged(unet, LowRankWeights(scaled)).tensors, strict=False)
    return unet


def test_each_branch_is_asked_with_the_weights_that_guidance_will_give_it(tmp_path: Path) -> None:
    """theta + eta answers the prompt, theta + alpha*eta + beta*delta the empty prompt; the saved file holds delta."""
    asked: dict[str, list[tuple[tuple[Tensor, Tensor, Tensor], Tensor]]] = {"aligned": [], "policy": []}

    def listen(patch: pytest.MonkeyPatch, name: str) -> None:
        plain = getattr(Network, name)

        def listening(network: Network, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
            found = plain(network, noisy, timesteps, conditioning)
            asked[name].append(((noisy, timesteps, conditioning["encoder_hidden_states"]), found.detach()))
            return found

        patch.setattr(Network, name, listening)

    eta, pipeline = tiny_weights(1), tiny_pipeline()
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    guided: dict[str, Any] = {"through_guidance": 4.0, "alpha": ALPHA, "beta": BETA}
    with pytest.MonkeyPatch.context() as patch:
        for name in asked:
            listen(patch, name)
        config = small_config(tmp_path / "two", max_train_steps=2, **guided)
        train_adapter(config, random_pairs(4), pipeline, aligned=eta)
    train_adapter(small_config(tmp_path / "one", max_train_steps=1, **guided), random_pairs(4), pipeline, aligned=eta)
    delta = load_adapter(tmp_path / "one")  # as it stood at the second step
    expected = {"aligned": with_weights((eta, 1.0)), "policy": with_weights((eta, ALPHA), (delta, BETA))}
    for name, unet in expected.items():
        inputs, found = asked[name][1]
        with torch.no_grad():
            torch.testing.assert_close(found, unet(*inputs).sample, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())


def test_the_file_says_what_it_was_trained_for_and_stock_diffusers_still_reads_it(tmp_path: Path) -> None:
    guided: dict[str, Any] = {"through_guidance": 4.0, "alpha": ALPHA, "beta": BETA}
    train_adapter(small_config(tmp_path / "g", **guided), random_pairs(4), tiny_pipeline(), aligned=tiny_weights(1))
    train_adapter(small_config(tmp_path / "plain"), random_pairs(4), tiny_pipeline())
    assert adapter_file(tmp_path / "g", "negative").trained_for == {"alpha": ALPHA, "beta": BETA}
    assert adapter_file(tmp_path / "plain", "negative").trained_for == {}
    assert load_adapter(tmp_path / "g").trained_for == {"alpha": ALPHA, "beta": BETA, "guidance_scale": 4.0}
    config = json.loads((tmp_path / "g" / "config.json").read_text())
    assert (config["alpha"], config["beta"]) == (ALPHA, BETA)
    assert "alpha" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(str(tmp_path / "g"))
    assert pipeline.get_active_adapters()


def test_the_app_uses_what_an_adapter_was_trained_for_as_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: ModelFamily
) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, tiny)
    where = f"--from-db --family tiny --database-url sqlite:///{tmp_path}/npo.db --data-dir {tmp_path}/data"
    how = "--max-train-steps 1 --batch-size 4 --rank 2 --min-pairs 3 --device cpu --through-guidance 4"
    with open_store(tmp_path) as store:
        vote_in_store(store, tiny, "lrl")
        assert train.npo.main([*where.split(), *how.split(), "--alpha", f"{ALPHA}", "--beta", f"{BETA}"]) == 0
        generator = Generator(tiny, device="cpu")
        shelf = AdapterShelf(store, generator)
        assert shelf.shares("tiny-negative") == (tiny.alpha, tiny.beta) == (1.0, 1.0)
        assert shelf.shares() == (ALPHA, BETA)
        shelf.put_on()
    request = GenerationRequest("a cat", variants=("aligned_npo",))
    by_default, asked = generator.generate(request), generator.generate(replace(request, alpha=ALPHA, beta=BETA))
    assert (by_default.request.alpha, by_default.request.beta) == (ALPHA, BETA)
    np.testing.assert_array_equal(*(np.asarray(open_image(m.samples[0].media)) for m in (by_default, asked)))
    other = generator.generate(replace(request, beta=1.0))
    assert other.samples[0].media != asked.samples[0].media


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"alpha": 0.5}, "give --through-guidance too"),
        ({"through_guidance": 4.0, "alpha": 9.0}, "Alpha is 9.0; give a number from -2 to 4."),
        ({"through_guidance": 4.0, "beta": 0.0}, "Beta is 0.0; give a number above 0 and at most 4."),
    ],
)
def test_shares_out_of_range_get_one_sentence(tmp_path: Path, changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        train_adapter(small_config(tmp_path, **changes), random_pairs(4), tiny_pipeline(), aligned=tiny_weights(1))


def test_a_family_s_shares_are_those_of_training_unless_others_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: ModelFamily
) -> None:
    monkeypatch.setitem(families.FAMILIES, "tiny", replace(tiny, beta=0.4))
    monkeypatch.setitem(SCORERS, "brightness", lambda family: Brightness())
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\n")
    flags = f"--family tiny --data-dir {tmp_path} --output-dir {tmp_path}/out --device cpu --max-train-steps 1"
    reward = f"--reward-gradient --reward brightness --prompts {prompts} --through-guidance 3 --rank 2 --batch-size 1"
    assert train.npo.main([*flags.split(), *reward.split()]) == 0
    assert adapter_file(tmp_path / "out", "negative").trained_for == {"alpha": 1.0, "beta": 0.4}
