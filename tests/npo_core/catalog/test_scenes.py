from __future__ import annotations

import pytest

from npo_core.catalog.nouns import plural, singulars, with_article
from npo_core.catalog.scenes import Scene, Thing, Words, read_scene

WORDS = Words(
    concepts=("cat", "dog", "tree", "orange", "fire", "fire truck", "chair", "mouse", "book", "books", "spider web"),
    styles=("3d", "flat"),
    backgrounds=("white", "blue"),
    colours=("red", "orange", "blue"),
    grounds=("sky", "night sky", "beach"),
    synonyms=(("kitty", "cat"), ("🐱", "cat"), ("🟠", "orange")),
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat, 3d style", Scene((Thing("cat"),), None, "3d", None)),
        ("Two Red DOGS, flat style, blue background", Scene((Thing("dog", "red", 2),), None, "flat", "blue")),
        (
            "a red fire truck next to a tree, flat style, sky",
            Scene((Thing("fire truck", "red"), Thing("tree")), "next to", "flat", "sky"),
        ),
        ("a cat on a chair, night sky", Scene((Thing("cat"), Thing("chair")), "on", None, "night sky")),
        ("a cat on a beach", Scene((Thing("cat"),), None, None, "beach")),
        ("cat on a blue background", Scene((Thing("cat"),), None, None, "blue")),
        ("three mice above books", Scene((Thing("mouse", None, 3), Thing("books")), "above", None, None)),
        ("an orange orange", Scene((Thing("orange", "orange"),), None, None, None)),
        ("an orange cat and an orange", Scene((Thing("cat", "orange"), Thing("orange")), "next to", None, None)),
        ("a dog, a blue cat", Scene((Thing("dog"), Thing("cat", "blue")), None, None, None)),
        ("🐱 with kitty under a night sky", Scene((Thing("cat"), Thing("cat")), "next to", None, "night sky")),
        ("two spider webs", Scene((Thing("spider web", None, 2),), None, None, None)),
        ("a zeppelin, 3d style", Scene((), None, "3d", None)),
        ("", Scene((), None, None, None)),
    ],
)
def test_a_prompt_says_which_things_and_how_many_in_what_colour_style_and_surroundings(
    prompt: str, expected: Scene
) -> None:
    assert read_scene(prompt, WORDS) == expected


@pytest.mark.parametrize(
    ("singular", "expected"),
    [("cat", "cats"), ("mouse", "mice"), ("fire truck", "fire trucks"), ("cherry", "cherries"), ("bus", "buses"),
     ("toy", "toys"), ("maple leaf", "maple leaves"), ("torch", "torches"), ("bow and arrow", "bows and arrows")],
)  # fmt: skip
def test_a_plural_is_found_and_leads_back(singular: str, expected: str) -> None:
    assert plural(singular) == expected
    if " " not in singular:
        assert singular in singulars(expected)


def test_an_article_goes_by_the_first_letter() -> None:
    assert [with_article(word) for word in ("owl", "red owl")] == ["an owl", "a red owl"]
