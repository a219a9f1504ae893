from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.tiny import tiny_motion_adapter, tiny_pipeline
from train.emoji.bank import token_ids
from train.emoji.motion import ClipBank
from train.emoji.slides import WORDS, teach_words, train_on


def copied(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_teaching_moves_the_embeddings_of_the_two_words_and_nothing_else() -> None:
    pipeline = tiny_pipeline()
    embeddings = pipeline.text_encoder.get_input_embeddings().weight.detach().clone()
    unet, text = copied(pipeline.unet), copied(pipeline.text_encoder)
    teach_words(pipeline, steps=2)
    moved = (pipeline.text_encoder.get_input_embeddings().weight != embeddings).any(1).nonzero().flatten().tolist()
    assert moved == sorted(pipeline.tokenizer(word).input_ids[1] for word in WORDS)
    assert all(torch.equal(value, unet[name]) for name, value in pipeline.unet.state_dict().items())
    changed = [name for name, value in pipeline.text_encoder.state_dict().items() if not torch.equal(value, text[name])]
    assert len(changed) == 1
    assert "token_embedding" in changed[0]


def test_training_on_slides_changes_the_motion_modules_alone(tmp_path: Path) -> None:
    pipeline, adapter = tiny_pipeline(), tiny_motion_adapter()
    before = copied(adapter)
    tokens = token_ids(pipeline.tokenizer, ["a cat sliding left", "a cat sliding right"])
    bank = ClipBank(torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half(), tokens)
    unet = train_on(pipeline, adapter, bank, bank, steps=2, work=tmp_path)
    after = {name: value for name, value in unet.state_dict().items() if ".motion_modules." in name}
    assert before.keys() == after.keys()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
    still = copied(pipeline.unet)
    shared = unet.state_dict().keys() & still.keys()
    assert len(shared) > 50
    assert all(torch.equal(unet.state_dict()[name], still[name]) for name in shared)
