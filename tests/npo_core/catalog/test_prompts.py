from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from npo_core.catalog.prompts import (
    PromptGuide,
    UnknownWord,
    compose,
    load_guide,
    named_motion,
    replace_word,
    unknown_words,
    with_motion,
)
from npo_core.errors import InputError
from tests.tiny import GUIDE

VOCABULARY = PromptGuide(
    concepts={"apple": "food", "cherries": "food", "ice cream": "food", "cat face": "animals", "box": "objects"},
    styles=("3d", "flat"),
    backgrounds=("white", "blue"),
    colours=("red", "blue"),
    suggestions=("a red apple, 3d style",),
)


@pytest.mark.parametrize(
    "prompt",
    [
        "a red apple, 3d style, blue background",
        "An ICE CREAM!",
        "apples and boxes",
        "a cherry",
        "the cat's face",
        "2 cats",
        "",
    ],
)
def test_known_words_plurals_and_grammar_are_not_pointed_out(prompt: str) -> None:
    assert unknown_words(prompt, VOCABULARY) == ()


def test_unknown_words_come_once_in_order_with_near_names() -> None:
    found = unknown_words("a zebra eating an aple, with a zebra and chery on faces of iced creams", VOCABULARY)
    assert [each.word for each in found] == ["zebra", "eating", "aple", "chery", "iced"]
    near = {each.word: each.near for each in found}
    assert near["zebra"] == ()
    assert near["aple"] == ("apple",)
    assert near["chery"] == ("cherries",)
    assert near["iced"] == ("ice cream",)


def test_at_most_three_near_names_are_given() -> None:
    guide = PromptGuide({f"kitten{letter}": "animals" for letter in "abcde"}, (), (), (), ())
    (found,) = unknown_words("kittenx", guide)
    assert isinstance(found, UnknownWord)
    assert len(found.near) == 3


MEANT = replace(
    VOCABULARY,
    synonyms={
        "kitty": "cat face",
        "fire engine": "box",
        "🍎": "apple",
        "🐱": "cat face",
        "fruit": "apple",
        "❄": "blue",
    },
    related={"pastry": ("ice cream", "cherries"), "🥧": ("ice cream",)},
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a kitty next to a pastry", {"kitty": ("cat face",), "pastry": ("ice cream", "cherries")}),
        ("two kitties", {"kitties": ("cat faces",)}),
        ("a fire engine", {"fire engine": ("box",)}),
        ("🐱🍎🐱 🥧", {"🐱": ("cat face",), "🍎": ("apple",), "🥧": ("ice cream",)}),
        ("🦑 ❄\ufe0f", {"🦑": (), "❄": ("blue",)}),
        ("corns, coins and boxers", {"corns": (), "coins": (), "boxers": ()}),
    ],
)
def test_other_words_phrases_and_emoji_are_pointed_out_with_what_they_mean(
    prompt: str, expected: dict[str, tuple[str, ...]]
) -> None:
    assert {found.word: found.near for found in unknown_words(prompt, MEANT)} == expected


@pytest.mark.parametrize(
    ("prompt", "word", "name", "expected"),
    [
        ("a kitty, 3d style", "kitty", "cat", "a cat, 3d style"),
        ("a kitty, 3d style", "kitty", "owl", "an owl, 3d style"),
        ("An automobile on kitty", "automobile", "car", "a car on kitty"),
        ("the fire engine", "fire engine", "fire truck", "the fire truck"),
        ("🐱🍎", "🐱", "cat", "cat and 🍎"),
        ("cat and 🍎, flat style", "🍎", "apple", "cat and apple, flat style"),
        ("☁\ufe0f", "☁", "cloud", "cloud"),
    ],
)
def test_a_strange_word_is_replaced_with_its_article(prompt: str, word: str, name: str, expected: str) -> None:
    assert replace_word(prompt, word, name) == expected


@pytest.mark.parametrize(
    ("prompt", "style", "background", "expected"),
    [
        ("a red apple", "3d", "blue", "a red apple, 3d style, blue background"),
        ("a red apple", None, None, "a red apple"),
        ("a red apple,  flat style", None, "blue", "a red apple, flat style, blue background"),
        ("a red apple, flat style, white background", "3d", None, "a red apple, 3d style, white background"),
        ("a red apple, blue background, flat style", "", "", "a red apple"),
        ("a cat in style, on a mat", "3d", None, "a cat in style, on a mat, 3d style"),
        ("a cat, style", "3d", None, "a cat, style, 3d style"),
        ("", "3d", "blue", "3d style, blue background"),
    ],
)
def test_a_prompt_is_composed_in_the_order_of_the_training_prompts(
    prompt: str, style: str | None, background: str | None, expected: str
) -> None:
    assert compose(prompt, style, background) == expected


def test_a_painted_ground_stands_alone_and_takes_the_place_of_a_background() -> None:
    grounds = ("night sky", "snow")
    assert compose("a cat, snow", "3d", None, grounds) == "a cat, 3d style, snow"
    assert compose("a cat, Snow", None, "night sky", grounds) == "a cat, night sky"
    assert compose("a cat, blue background", None, "snow", grounds) == "a cat, snow"
    assert compose("a cat, snow", None, "", grounds) == "a cat"


def test_composing_twice_changes_nothing() -> None:
    once = compose("a red apple", "3d", "blue")
    assert compose(once, "3d", "blue") == compose(once) == once


def test_a_guide_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps(GUIDE), encoding="utf-8")
    guide = load_guide(path)
    assert guide.concepts["cat face"] == "animals"
    assert guide.styles == ("3d", "cartoon", "flat")


def test_a_broken_guide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    for content in ("{", "[]", "{}", json.dumps({**GUIDE, "concepts": ["apple"]})):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match="cannot be read"):
            load_guide(path)
    with pytest.raises(InputError, match="cannot be read"):
        load_guide(tmp_path / "none.json")


MOVING = replace(VOCABULARY, motions=("bouncing", "sliding left", "sliding right"))


@pytest.mark.parametrize(
    ("prompt", "motion", "expected"),
    [
        ("a red apple, 3d style", "bouncing", "a red apple bouncing, 3d style"),
        (
            "a red apple sliding left, 3d style, blue background",
            "sliding right",
            "a red apple sliding right, 3d style, blue background",
        ),
        ("a cat bouncing", "", "a cat"),
        ("a cat", "", "a cat"),
        ("", "bouncing", ""),
    ],
)
def test_a_motion_follows_the_thing_and_replaces_the_one_before(prompt: str, motion: str, expected: str) -> None:
    assert with_motion(prompt, motion, MOVING) == expected
    assert named_motion(expected, MOVING) == (motion or None if prompt else None)


def test_words_of_motions_are_known_where_clips_are_made() -> None:
    assert [word.word for word in unknown_words("an apple sliding left", VOCABULARY)] == ["sliding", "left"]
    assert unknown_words("an apple sliding left", MOVING) == ()
