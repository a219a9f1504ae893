"""The scorers that are downloaded: a tiny real CLIP in the place of PickScore, and what a package's absence says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from npo_core.catalog.families import FAMILIES
from npo_core.errors import InputError
from tests.tiny import tiny_tokenizer
from train.judging.margins import MARGINS, default_margin
from train.judging.scorers import SCORERS, PickScore, load_scorer, score_by_prompt

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights and its processor, in the layout of the Hub."""
    folder, tokenizer = tmp_path_factory.mktemp("clip"), tiny_tokenizer()
    text = {**TINY, "vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text |= {"pad_token_id": tokenizer.pad_token_id}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(projection_dim=16, text_config=text, vision_config=vision)).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for _ in range(count)]


def test_pickscore_is_the_scaled_cosine_of_each_picture_and_its_own_prompt(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.judging.scorers.SCORE_BATCH", 2)  # five pictures are read in three parts
    images, prompts = pictures(5), ["a cat", "a much longer prompt about a red apple", "a cat", "x", "a dog"]
    scores = PickScore(str(clip), str(clip), device="cpu").score(images, prompts)
    model, processor = CLIPModel.from_pretrained(clip).eval(), CLIPProcessor.from_pretrained(clip)
    expected = []
    for image, prompt in zip(images, prompts, strict=True):
        inputs = processor(text=[prompt], images=[image], return_tensors="pt")
        with torch.no_grad():
            both = model(**inputs)
        cosine = torch.nn.functional.cosine_similarity(both.image_embeds, both.text_embeds)
        expected.append(float(cosine * model.logit_scale.detach().exp()))
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    assert np.ptp(scores) > 1e-2


def test_a_package_is_asked_once_for_each_prompt_and_answers_find_their_places() -> None:
    asked = []

    def score(images: list[Image.Image], prompt: str) -> list[float] | float:
        asked.append((prompt, len(images)))
        found = [float(np.asarray(image).mean()) + len(prompt) for image in images]
        return found if len(found) > 1 else found[0]  # as ImageReward answers

    images, prompts = pictures(4), ["a cat", "a", "a cat", "a cat"]
    scores = score_by_prompt(score, images, prompts)
    means = [np.asarray(image).mean() + len(prompt) for image, prompt in zip(images, prompts, strict=True)]
    np.testing.assert_allclose(scores, means)
    assert asked == [("a cat", 3), ("a", 1)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "This scorer needs the package image-reward; run pip install image-reward."),
        (
            "import not_to_be_found",
            r"is installed but cannot be imported \(No module named 'not_to_be_found'\)",
        ),
        ("from json import nothing_of_the_kind", r"is installed but cannot be imported \(cannot import name 'nothing_"),
    ],
)
def test_a_package_that_is_missing_and_one_that_lacks_something_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "ImageReward.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=sentence) as raised:
        load_scorer("imagereward", FAMILIES["emoji"])
    assert str(raised.value).startswith(("This scorer needs", "The package image-reward"))
    assert "\n" not in str(raised.value)


def test_every_scorer_has_a_margin_in_its_own_unit(capsys: pytest.CaptureFixture[str]) -> None:
    import train.npo

    assert MARGINS.keys() == SCORERS.keys()
    assert default_margin("hpsv2") < 0.05  # of cosines from 0.2 to 0.3
    with pytest.raises(SystemExit):
        train.npo.main(["--help"])
    assert f"{default_margin('hpsv2'):g}" in capsys.readouterr().out
