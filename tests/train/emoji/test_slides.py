"""Teaching left and right, on tiny real pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import MotionAdapter, UNetMotionModel
from transformers import CLIPTextModel

from tests.tiny import tiny_motion_adapter, tiny_pipeline
from train.emoji.bank import token_ids
from train.emoji.motion import ClipBank, MotionWords
from train.emoji.slides import SlidesTrainer, showing, teach_word

FRAMES = 8


def copied(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.fixture
def pipeline() -> Any:
    made = tiny_pipeline()
    made.text_encoder.requires_grad_(False)
    return made


def bank(pipeline: Any, caption: str) -> ClipBank:
    latents = torch.randn(3, 4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    return ClipBank(latents, token_ids(pipeline.tokenizer, 3 * [caption]))


def test_teaching_moves_the_word_and_nothing_else(pipeline: Any) -> None:
    unet, text = copied(pipeline.unet), copied(pipeline.text_encoder)
    word = MotionWords(pipeline.text_encoder, pipeline.tokenizer, ["left"])
    before = word.rows.detach().clone()
    teach_word(pipeline, word, torch.randn(4, 4, 8, 8), steps=2)
    assert not torch.equal(word.rows, before)
    assert not changed(pipeline.unet, unet)
    assert not changed(pipeline.text_encoder, text)
    assert not any(module._forward_hooks for module in pipeline.unet.modules())
    word.write_back()
    assert len(changed(pipeline.text_encoder, text)) == 1


def test_a_few_frames_stand_where_they_stood_in_the_whole_clip(pipeline: Any) -> None:
    unet: Any = UNetMotionModel.from_unet2d(pipeline.unet, tiny_motion_adapter())
    clip = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    states = torch.randn(4, 5, pipeline.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(1))

    def predict() -> torch.Tensor:
        with torch.no_grad():
            prediction: torch.Tensor = unet(clip, 500, states, return_dict=False)[0]
        return prediction

    plain = predict()
    with showing(unet, torch.tensor([0, 1, 2, 3])):
        assert torch.equal(predict(), plain)
    with showing(unet, torch.tensor([0, 2, 5, 7])):
        assert not torch.allclose(predict(), plain, atol=1e-5)
    assert torch.equal(predict(), plain)


def test_training_changes_the_word_and_the_motion_modules_alone(pipeline: Any, tmp_path: Path) -> None:
    still, text = copied(pipeline.unet), copied(pipeline.text_encoder)
    word = MotionWords(pipeline.text_encoder, pipeline.tokenizer, ["left"])
    slides = (bank(pipeline, "a cat sliding left"), bank(pipeline, "a cat sliding right"))
    trainer = SlidesTrainer(pipeline, tiny_motion_adapter(), word, slides, bank(pipeline, "a cat"))
    before, rows = copied(trainer.unet), word.rows.detach().clone()
    run = trainer.run(tmp_path / "slides.pt", steps=2)
    run.to_the_end(trainer.step, 6)
    moved = changed(trainer.unet, before)
    assert moved
    assert all(".motion_modules." in name for name in moved)
    assert not torch.equal(word.rows, rows)
    assert not changed(pipeline.unet, still)
    run.take_average()
    trainer.export(tmp_path / "out")
    kept: Any = MotionAdapter.from_pretrained(tmp_path / "out" / "motion")
    assert all(
        torch.equal(value, trainer.unet.state_dict()[name].half().float()) for name, value in kept.state_dict().items()
    )
    encoder: Any = CLIPTextModel.from_pretrained(tmp_path / "out" / "text_encoder")
    assert len(changed(encoder, {name: value.half().float() for name, value in text.items()})) == 1
