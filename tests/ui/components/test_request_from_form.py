from __future__ import annotations

from dataclasses import replace

import pytest

from npo_core.catalog.families import ModelFamily
from npo_core.catalog.prompts import PromptGuide, load_guide
from npo_core.requests import resolve_request
from service.errors import InputError
from ui.components import request_from_form
from ui.components.prompt_card import read_prompt


@pytest.fixture
def guide(family: ModelFamily) -> PromptGuide:
    assert family.guide
    return load_guide(family.guide)


def test_an_empty_number_means_the_familys_default_and_whole_floats_count_as_whole(family: ModelFamily) -> None:
    resolved = resolve_request(request_from_form.build_request(" a cat ", "12", "", 5.0, None, None, 0.5, ""), family)
    assert (resolved.prompt, resolved.seed, resolved.steps) == ("a cat", 12, 5)
    assert (resolved.guidance_scale, resolved.alpha, resolved.beta) == (4.0, 1.0, 0.5)
    assert resolved.scheduler == "ddim"


@pytest.mark.parametrize("text", ["", "seven", "1.5", None, "0x10"])
def test_a_seed_in_words_is_one_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"The seed is '.*'; give a whole number from 0 to 9223372036854775807\."):
        request_from_form.parse_seed(text)


def test_the_largest_seed_survives_the_form() -> None:
    assert request_from_form.parse_seed(" 9223372036854775807 ") == 2**63 - 1


def test_the_dice_gives_seeds_that_the_form_accepts() -> None:
    assert len({request_from_form.build_request("a cat", empty).seed for empty in ("", " ", None, "", "")}) == 5


def test_chips_rewrite_the_prompt_and_are_read_back_from_it(guide: PromptGuide) -> None:
    prompt = request_from_form.with_background(
        guide, request_from_form.with_style(guide, "a red apple", "flat"), "blue"
    )
    assert prompt == "a red apple, flat style, blue background"
    assert (request_from_form.named_style(prompt, guide), request_from_form.named_background(prompt, guide)) == (
        "flat",
        "blue",
    )
    assert request_from_form.with_style(guide, prompt, request_from_form.ANY) == "a red apple, blue background"
    assert request_from_form.named_style("a red apple", guide) == request_from_form.ANY


def test_emoji_characters_become_things_one_press_after_the_other(guide: PromptGuide) -> None:
    guide = replace(guide, synonyms={"🐱": "cat", "🍎": "apple"})
    prompt = "🐱🍎, 3d style"
    for _ in range(2):
        *_, near = read_prompt(guide, prompt)
        prompt = request_from_form.replace_word(prompt, near["choices"][0][1])
    assert prompt == "cat and apple, 3d style"
    assert request_from_form.strange_words(prompt, guide) == ()


def test_a_painted_ground_is_a_background_among_the_others(guide: PromptGuide) -> None:
    guide = replace(guide, grounds=("night sky", "snow"))
    prompt = request_from_form.with_background(guide, "a red apple, snow, 3d style", "night sky")
    assert prompt == "a red apple, 3d style, night sky"
    assert request_from_form.named_background(prompt, guide) == "night sky"
    assert request_from_form.with_background(guide, prompt, "blue") == "a red apple, 3d style, blue background"
    assert request_from_form.with_style(guide, "a red apple, snow", "flat") == "a red apple, flat style, snow"
    assert request_from_form.with_background(guide, prompt, request_from_form.ANY) == "a red apple, 3d style"


def test_strange_words_are_named_and_a_press_on_a_near_one_replaces_it(guide: PromptGuide) -> None:
    style, background, _, notice, near = read_prompt(guide, "a red Aple, 3d style")
    assert (style, background) == ("3d", request_from_form.ANY)
    assert "“aple”" in notice
    assert near["visible"]
    assert ("apple", "aple\tapple") in near["choices"]
    assert request_from_form.replace_word("a red Aple, 3d style", "aple\tapple") == "a red apple, 3d style"


def test_with_two_strange_words_a_chip_says_which_one_it_replaces(guide: PromptGuide) -> None:
    words = request_from_form.strange_words("aple and roket", guide)
    assert ("aple → apple", "aple\tapple") in request_from_form.replacements(words)
    assert ("roket → rocket", "roket\trocket") in request_from_form.replacements(words)


def test_a_known_prompt_an_empty_one_and_a_family_without_vocabulary_raise_no_eyebrow(guide: PromptGuide) -> None:
    assert request_from_form.strange_words("two red apples, flat style", guide) == ()
    assert request_from_form.strange_words("  ", guide) == ()
    assert request_from_form.strange_words("zzz", None) == ()
    assert read_prompt(replace(guide), "")[2] == request_from_form.ANY
