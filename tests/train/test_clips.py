"""Training on clips: what is trained, on what, and that picks on clips and on pictures stay apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import train.npo
from collection.store import Store
from npo_core.catalog import families
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.sampling.pipelines import build_clip_pipeline, load_pipeline
from npo_core.weights import load_adapter
from service.generation.adapters_in_use import NEWEST, AdapterShelf
from tests.collection.helpers import open_store
from tests.tiny import tiny_family
from tests.train.helpers import CLIP_SHAPE, random_pairs, small_config, vote_in_store, weights_in
from train.engine.loop import train_adapter
from train.network.policy import Network
from train.pairs.pairs import from_store


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


def clip_config(folder: Path, **changes: Any) -> Any:
    return small_config(
        folder, **{"modality": "video", "batch_size": 2, "max_train_steps": 3, "checkpoint_every": 1} | changes
    )


def test_training_on_clips_starts_at_no_preference_and_learns_one(tmp_path: Path, tiny: ModelFamily) -> None:
    config = clip_config(tmp_path, batch_size=4, max_train_steps=12, caption_dropout=0.0)
    losses: list[float] = []
    train_adapter(config, random_pairs(4, shape=CLIP_SHAPE), tiny, lambda step: losses.append(step.values["loss"]))
    assert losses[0] == pytest.approx(np.log(2), abs=1e-4), "the LoRA starts as nothing"
    assert np.mean(losses[-3:]) < 0.9 * losses[0]


def test_an_interrupted_run_on_clips_ends_with_the_same_bytes(tmp_path: Path, tiny: ModelFamily) -> None:
    pairs = random_pairs(3, shape=CLIP_SHAPE)
    train_adapter(clip_config(tmp_path / "straight"), pairs, tiny)
    train_adapter(clip_config(tmp_path / "halved", max_train_steps=1), pairs, tiny)
    train_adapter(clip_config(tmp_path / "halved", resume=True), pairs, tiny)
    assert weights_in(tmp_path / "straight") == weights_in(tmp_path / "halved")


@pytest.mark.parametrize(("targets", "of_motion"), [("attention", False), ("all", False), ("attention+motion", True)])
def test_motion_modules_are_trained_only_when_asked_for(
    tmp_path: Path, tiny: ModelFamily, targets: str, of_motion: bool
) -> None:
    train_adapter(clip_config(tmp_path, targets=targets, max_train_steps=1), random_pairs(2, shape=CLIP_SHAPE), tiny)
    layers = load_adapter(tmp_path).layers
    assert any(".attentions." in name for name in layers)
    assert any(".motion_modules." in name for name in layers) == of_motion


def test_the_network_is_asked_about_every_frame_with_its_clips_own_text(tiny: ModelFamily) -> None:
    pipeline = build_clip_pipeline(load_pipeline(tiny), tiny)
    network = Network(pipeline.unet, pipeline.unet, pipeline, Accelerator(cpu=True))
    random = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(2, *CLIP_SHAPE, generator=random), torch.randn(2, 7, 32, generator=random)
    timesteps = torch.tensor([100, 900])
    with torch.no_grad():
        together = network.policy(noisy, timesteps, {"encoder_hidden_states": text})
        for row in range(2):
            alone = pipeline.unet(
                noisy[row : row + 1].transpose(1, 2), timesteps[row], text[row : row + 1].repeat(4, 1, 1)
            ).sample
            assert torch.allclose(together[row], alone[0].transpose(0, 1), atol=1e-5)


def test_pairs_of_the_wrong_kind_are_refused(tmp_path: Path, tiny: ModelFamily) -> None:
    with pytest.raises(InputError, match=r"this base wants \(frames, 4, height, width\)"):
        train_adapter(clip_config(tmp_path), random_pairs(2), tiny)
    with pytest.raises(InputError, match=r"this base wants \(4, height, width\)"):
        train_adapter(small_config(tmp_path), random_pairs(2, shape=CLIP_SHAPE), tiny)
    with pytest.raises(InputError, match="Pictures have no motion modules to train"):
        train_adapter(small_config(tmp_path, targets="attention+motion"), random_pairs(2), tiny)


def test_picks_on_clips_and_on_pictures_are_mixed_only_when_asked(tiny: ModelFamily, store: Store) -> None:
    vote_in_store(store, tiny, "lr")
    vote_in_store(store, tiny, "lrl", modality="video")
    assert {pair.preferred.shape for pair in from_store(store, "tiny").pairs} == {(4, 8, 8)}
    clips = from_store(store, "tiny", "video")
    assert [pair.preferred.shape for pair in clips.pairs] == [CLIP_SHAPE] * 3
    mixed = from_store(store, "tiny", "video", still_frames=4)
    assert [pair.preferred.shape for pair in mixed.pairs] == [CLIP_SHAPE] * 5
    still = mixed.pairs[-1].preferred
    assert all(np.array_equal(still[0], frame) for frame in still)


def run(tmp_path: Path, *more: str) -> int:
    where = f"--from-db --family tiny --database-url sqlite:///{tmp_path}/npo.db --data-dir {tmp_path}/data"
    how = "--max-train-steps 2 --rank 2 --min-pairs 3 --device cpu --learning-rate 0.01 --mixed-precision no"
    return train.npo.main([*where.split(), *how.split(), *more])


def test_a_negative_model_of_clips_is_offered_for_clips_and_changes_the_next_one(
    tmp_path: Path, tiny: ModelFamily, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    vote_in_store(store, tiny, "l")
    vote_in_store(store, tiny, "lrl", modality="video")
    generator = Generator(tiny)
    shelf = AdapterShelf(store, generator)
    request = GenerationRequest("a red apple", seed=1, modality="video", steps=1)
    shelf.put_on(modality="video")
    before = {sample.variant: sample.media for sample in generator.generate(request).samples}
    assert run(tmp_path, "--modality", "video") == 0
    said = capsys.readouterr().out
    assert "3 pairs on 3 prompts, reversed: rejected clips become likelier" in said
    assert "2 steps of 4 pairs" in said
    (adapter,) = store.adapters("tiny", "negative")
    assert adapter.modality == "video"
    assert [version.id for version in shelf.versions("negative")] == ["tiny-negative"]
    assert [version.id for version in shelf.versions("negative", "video")] == [adapter.id, "tiny-negative"]

    in_use = shelf.put_on({"negative": NEWEST}, "video")
    assert in_use.versions["negative"].id == adapter.id
    after = {sample.variant: sample.media for sample in generator.generate(request).samples}
    assert {name: after[name] == before[name] for name in after} == {
        "base": True,
        "aligned": True,
        "aligned_npo": False,
    }
    assert shelf.put_on().versions["negative"].id == "tiny-negative", "pictures keep theirs"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--modality", "sound"], "Tiny does not make modality 'sound'; choose from image, video."),
        (["--include-pictures"], "give --modality video too"),
        (["--targets", "attention+motion"], "Pictures have no motion modules to train"),
        (["--modality", "video"], "There are 0 usable picks for tiny"),
    ],
)
def test_a_mistake_gets_one_sentence(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], more: list[str], sentence: str
) -> None:
    assert run(tmp_path, *more) == 2
    assert sentence in capsys.readouterr().err
