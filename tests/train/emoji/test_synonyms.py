"""Other words and emoji characters for what the family draws, from a small emojibase of the real one's layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from npo_core.catalog.prompts import PromptGuide, load_guide, unknown_words
from npo_core.catalog.scenes import Words, read_scene
from train.emoji.drawing.concepts import BACKDROPS, COLOURS, concepts
from train.emoji.drawing.motions import PHRASES
from train.emoji.language import wording
from train.emoji.language.synonyms import OTHER_WORDS, read_meanings
from train.emoji.language.vocabulary import SUGGESTIONS, vocabulary

EMOJIBASE = [
    ("cat face", "🐱", 3, ["cat", "pet", "whiskers"]),
    ("cat", "🐈\ufe0f", 3, ["cat", "pet"]),
    ("duck", "🦆", 3, ["bird", "pond", "waddle"]),
    ("goose", "🪿", 3, ["bird", "pond", "honk"]),
    ("red apple", "🍎", 4, ["apple", "fruit"]),
    ("green apple", "🍏", 4, ["apple", "fruit"]),
    ("fire engine", "🚒", 5, ["fire", "truck"]),
    ("accordion", "🪗", 7, ["music"]),
    ("waving hand", "👋", 1, ["hand"]),
]


@pytest.fixture
def guide(tmp_path: Path) -> PromptGuide:
    entries = [dict(zip(("label", "emoji", "group", "tags"), entry, strict=True)) for entry in EMOJIBASE]
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "data.json").write_text(json.dumps(entries), encoding="utf-8")
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary(read_meanings(tmp_path))), encoding="utf-8")
    return load_guide(tmp_path / "vocabulary.json")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("🐱", ("cat",)),
        ("🐈", ("cat",)),
        ("🍎", ("apple",)),
        ("🍏", ("green apple",)),
        ("🪿", ("duck",)),
        ("🪗", ()),
        ("a fire engine", ("fire truck",)),
        ("geese", ("ducks",)),
        ("a kitty", ("cat",)),
    ],
)
def test_words_and_emoji_lead_to_what_means_the_same_or_comes_near(
    prompt: str, expected: tuple[str, ...], guide: PromptGuide
) -> None:
    (found,) = unknown_words(prompt, guide)
    assert found.near == expected


def test_every_other_word_leads_to_a_name_that_the_family_knows() -> None:
    assert set(OTHER_WORDS.values()) <= {*concepts(), *BACKDROPS, *COLOURS}


def test_the_model_knows_every_word_of_every_suggestion(guide: PromptGuide) -> None:
    words = Words(tuple(guide.concepts), guide.styles, guide.backgrounds, guide.colours, guide.grounds)
    for suggestion in guide.suggestions:
        assert unknown_words(suggestion, guide) == (), suggestion
        assert read_scene(suggestion, words).things, suggestion
    assert "a guitar next to a fire, night sky" in SUGGESTIONS[:6], "the page shows six"


def test_the_page_points_out_no_word_of_a_caption(guide: PromptGuide) -> None:
    known = [word for word in wording.words() if word != ","]
    assert unknown_words(" ".join(known), guide) == ()
    assert set(" ".join(PHRASES.values()).split()) <= set(known)
