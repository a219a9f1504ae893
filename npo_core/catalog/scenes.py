"""What a prompt of a small model asks for: "two dogs next to a red car, 3d style, grass" -> things, style, backdrop.

The grammar of the training prompts, read with a tolerance for other words between: up to three things with a number and
a colour each, how they stand to each other, a style, and what is behind them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from npo_core.catalog.nouns import plural

NUMBERS = {"one": 1, "two": 2, "2": 2, "pair": 2, "three": 3, "3": 3}
RELATIONS = {  # what may stand between two things -> how they stand; the first that is found counts
    "next to": "next to",
    "beside": "next to",
    "near": "next to",
    "above": "above",
    "over": "above",
    "on": "on",
    "and": "next to",
    "with": "next to",
}


@dataclass(frozen=True)
class Words:
    """The names that a prompt is read with. synonyms: other words, or emoji characters, for some of them."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...]
    grounds: tuple[str, ...] = ()
    synonyms: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Thing:
    """One kind of thing in a prompt; colour None where it is not said."""

    concept: str
    colour: str | None = None
    number: int = 1


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for; None where it does not say. `relation` is how the first thing stands to the second:
    "next to", "on" or "above". `backdrop` is one of the words' backgrounds or grounds."""

    things: tuple[Thing, ...]
    relation: str | None
    style: str | None
    backdrop: str | None


@lru_cache(maxsize=4096)
def read_scene(prompt: str, words: Words) -> Scene:
    """Parse a prompt. Names that are not among the words are passed over; the colour orange is told from the fruit."""
    text = _spelt_out(prompt.lower(), words)
    style = _last(rf"\b({_any(words.styles)}) style\b", text)
    text, backdrop = _without_backdrop(text, words)
    text = re.sub(rf"\b({_any(words.styles)}) style\b", " ", text)
    found = list(_pattern_of(words.concepts).finditer(text))
    kept = [match for match, after in zip(found, [*found[1:], None], strict=False) if not _colours(match, after, words)]
    ends = [0, *(match.end() for match in kept)]
    between = [text[end : match.start()] for end, match in zip(ends, kept, strict=False)]
    names = _names_of(words.concepts)
    things = tuple(_thing(names[match.group()], gap, words) for match, gap in zip(kept, between, strict=True))
    gap = between[1] if len(things) > 1 else ""
    relation = next((RELATIONS[word] for word in RELATIONS if re.search(rf"\b{word}\b", gap)), None)
    return Scene(things, relation, style, backdrop)


def _thing(concept: str, before: str, words: Words) -> Thing:
    told = re.findall(r"\w+", before)
    number = next((NUMBERS[word] for word in reversed(told) if word in NUMBERS), 1)
    return Thing(concept, next((word for word in reversed(told) if word in words.colours), None), number)


def _colours(match: re.Match[str], after: re.Match[str] | None, words: Words) -> bool:
    """Whether a name is only the colour of the next: the first word of "orange cat"."""
    return match.group() in words.colours and after is not None and match.string[match.end() : after.start()] == " "


def _without_backdrop(text: str, words: Words) -> tuple[str, str | None]:
    """The text without the phrase for what is behind, and what that is."""
    plain = rf"(?:on an? |with an? )?\b(?P<plain>{_any(words.backgrounds)}) background\b"
    painted = (
        rf"(?:(?:,|\b(?:in|on|under|at|against)(?: the| an?)?)\s+|^)(?P<painted>{_any(words.grounds)})(?=\s*(?:,|$))"
    )
    backdrop = None
    for pattern in (plain, painted) if words.grounds else (plain,):
        for match in re.finditer(pattern, text):
            backdrop = match.group(match.lastgroup or 0)
        text = re.sub(pattern, " , ", text)
    return text, backdrop


def _spelt_out(text: str, words: Words) -> str:
    """Emoji characters and other names in the words' own."""
    table = dict(words.synonyms)
    if not table:
        return text
    text = text.replace("\ufe0f", "")
    pattern, signs = _synonyms_of(words.synonyms)
    text = pattern.sub(lambda match: table[match.group()], text)
    return re.sub(r"\s+", " ", signs.sub(lambda match: f" {table[match.group()]} ", text)).strip()


@lru_cache(maxsize=8)
def _synonyms_of(synonyms: tuple[tuple[str, str], ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(words, signs): the first only between the borders of words."""
    spelt = [name for name, _ in synonyms if name.isascii()]
    signs = [name for name, _ in synonyms if not name.isascii()]
    return re.compile(rf"(?<![\w-])(?:{_any(spelt)})(?![\w-])"), re.compile(_any(signs))


@lru_cache(maxsize=8)
def _names_of(concepts: tuple[str, ...]) -> dict[str, str]:
    """Concepts by their names and plurals; a concept that is called like another's plural ("books") stays itself."""
    return {**{plural(name): name for name in concepts}, **{name: name for name in concepts}}


@lru_cache(maxsize=8)
def _pattern_of(concepts: tuple[str, ...]) -> re.Pattern[str]:
    """Any concept or its plural, the longest first."""
    return re.compile(rf"(?<![\w-])(?:{_any(list(_names_of(concepts)))})(?![\w-])")


def _any(names: Sequence[str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or "(?!)"


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None
