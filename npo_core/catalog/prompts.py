"""The words a small model knows: suggestions, words it has never seen, and prompts put together from choices.

The prompts it was trained on read "a[n] [colour] CONCEPT[ MOTION], STYLE style[, COLOUR background | GROUND]", or name
several things, as scenes.py reads them.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from npo_core.catalog.nouns import plural, singulars, with_article
from npo_core.errors import InputError

NEAR_WORDS = 3
CLOSE_SPELLING = 0.8  # difflib's ratio: "aple" is an apple, "coins" are no corn
_SIGNS = "\U0001f000-\U0001faff\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff"  # emoji characters
_WORD_OR_SIGN = re.compile(rf"\w+(?:-\w+)*|[{_SIGNS}]")
_UNSEEN = dict.fromkeys((0xFE0E, 0xFE0F, 0x200D))  # how a sign before them is to be drawn, or joined to the next

# Words that steer no picture, and those of the prompt's own grammar: never worth pointing out.
_STOP_WORDS = """
a an the and or of in on at with without to for by from as is are it its my your this that some one two three pair
next beside near above over under behind style background picture image icon emoji
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class PromptGuide:
    """The vocabulary of a family. `concepts` maps each thing it can draw to its group ("cat face" -> "animals").
    `motions` are the phrases for what things do in clips ("sliding left"); none where it makes only pictures.
    `grounds` are what is painted behind things ("night sky"). `synonyms` maps other words, phrases and emoji characters
    to names ("kitty" -> "cat"), `related` to names that come near ("goose" -> "duck", ...)."""

    concepts: dict[str, str]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...]
    suggestions: tuple[str, ...]
    motions: tuple[str, ...] = ()
    grounds: tuple[str, ...] = ()
    synonyms: dict[str, str] = field(default_factory=dict)
    related: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def backdrops(self) -> tuple[str, ...]:
        """All that can be behind things: colours, then paintings."""
        return self.backgrounds + self.grounds


@dataclass(frozen=True)
class UnknownWord:
    """A word, phrase or emoji character of a prompt that is nowhere in the vocabulary, and the nearest names that are:
    what means the same, else what comes near in meaning, else in spelling."""

    word: str
    near: tuple[str, ...]


def load_guide(path: str | Path) -> PromptGuide:
    """The guide in a `vocabulary.json`; raises InputError when it cannot be read or lacks a part."""
    try:
        optional: dict[str, object] = {"motions": [], "grounds": [], "synonyms": {}, "related": {}}
        content = {**optional, **json.loads(Path(path).read_text(encoding="utf-8-sig"))}
        related = {str(word): tuple(near) for word, near in dict(content.pop("related")).items()}
        tables: dict[str, Any] = {name: dict(content.pop(name)) for name in ("concepts", "synonyms")}
        lists: dict[str, Any] = {
            entry.name: tuple(content[entry.name])
            for entry in fields(PromptGuide)
            if entry.name not in ("related", *tables)
        }
        return PromptGuide(related=related, **tables, **lists)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"The vocabulary {path} cannot be read ({error}); it is a JSON object with "
            f"{', '.join(entry.name for entry in fields(PromptGuide))}."
        ) from None


def unknown_words(prompt: str, guide: PromptGuide) -> tuple[UnknownWord, ...]:
    """The words and emoji characters of `prompt` that the guide has in no name, each once, in order, with up to
    NEAR_WORDS near names; two words that mean something together ("fire engine") are pointed out as one.

    Plurals count as their singular, and every word of a longer name ("cat" of "cat face") as known.
    """
    names = [*guide.concepts, *guide.styles, *guide.backdrops, *guide.colours, *guide.motions]
    names_by_word: dict[str, list[str]] = {}
    for name in names:
        for form in {form for word in {*_words(name), *re.findall(r"\w+", name)} for form in singulars(word)}:
            names_by_word.setdefault(form, []).append(name)
    meanings: dict[str, tuple[str, ...]] = {**guide.related, **{word: (name,) for word, name in guide.synonyms.items()}}
    words = _words(prompt)
    pairs = [f"{first} {second}" for first, second in pairwise(words)]
    phrases = {pair: meanings[pair] for pair in pairs if pair in meanings and pair not in names}
    part_of = {word: pair for pair in phrases for word in pair.split()}
    strange = [
        part_of.get(word, word)
        for word in words
        if word in part_of
        or not (word in STOP_WORDS or word.isdigit() or word in names_by_word or singulars(word) & names_by_word.keys())
    ]
    return tuple(UnknownWord(word, _near(word, names_by_word, meanings)) for word in dict.fromkeys(strange))


def replace_word(prompt: str, word: str, name: str) -> str:
    """`prompt` with a name in place of a word that `unknown_words` found. Its article follows, and emoji characters
    side by side are joined: replace_word("🐱🍎", "🐱", "cat") is "cat and 🍎"."""
    if not word[0].isalnum():
        text = re.sub(rf"(?<=[{_SIGNS}])(?=[{_SIGNS}])", " and ", prompt.translate(_UNSEEN))
        return re.sub(r"\s+", " ", text.replace(word, f" {name} ")).replace(" ,", ",").strip()

    def said(match: re.Match[str]) -> str:
        return with_article(name) if match.group(1) else name

    return re.sub(rf"(?<!\w)(an?\s+)?{re.escape(word)}(?!\w)", said, prompt, flags=re.IGNORECASE)


def compose(prompt: str, style: str | None = None, background: str | None = None, grounds: tuple[str, ...] = ()) -> str:
    """`prompt` in the order of the training prompts: compose("a red apple", "3d", "blue") is
    "a red apple, 3d style, blue background".

    A style or background that the prompt already names is replaced; with None it is kept, with "" it is dropped.
    `grounds` are backgrounds that stand alone: "a red apple, night sky".
    """
    chosen = {"style": style, "background": background}
    subject = []
    for clause in filter(None, (part.strip() for part in prompt.split(","))):
        *choice, kind = clause.lower().split()
        if clause.lower() in grounds:
            if chosen["background"] is None:
                chosen["background"] = clause.lower()
        elif kind not in chosen or len(choice) not in (1, 2):  # "a cat in style" is about the cat
            subject.append(clause)
        elif chosen[kind] is None:
            chosen[kind] = clause[: -len(kind)].strip()
    said = [choice if choice in grounds else f"{choice} {kind}" for kind, choice in chosen.items() if choice]
    return ", ".join([*subject, *said])


def named_motion(prompt: str, guide: PromptGuide) -> str | None:
    """Which of the guide's motions `prompt` names, after the thing; None for none."""
    subject = prompt.split(",")[0].strip().lower()
    return next((motion for motion in guide.motions if subject.endswith(f" {motion}")), None)


def with_motion(prompt: str, motion: str, guide: PromptGuide) -> str:
    """`prompt` with the motion after the thing, in place of the one it names; "" takes it out.

    with_motion("a red apple spinning, 3d style", "sliding left", guide) is "a red apple sliding left, 3d style".
    """
    subject, comma, rest = prompt.partition(",")
    subject = subject.strip()
    named = named_motion(subject, guide)
    if named:
        subject = subject[: -len(named)].rstrip()
    return f"{subject} {motion}".strip() + comma + rest if subject else prompt


def _words(text: str) -> list[str]:
    """Words and emoji characters, in lower case."""
    return _WORD_OR_SIGN.findall(text.lower().replace("'s ", " ").translate(_UNSEEN))


def _near(
    word: str, names_by_word: Mapping[str, list[str]], meanings: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """What means the same or comes near, in the plural for a plural; else the names that are spelt nearly so, of those
    that share a word the shortest first."""
    if word in meanings:
        return meanings[word][:NEAR_WORDS]
    for form in singulars(word) & meanings.keys():
        return tuple(plural(name) for name in meanings[form][:NEAR_WORDS])
    close = difflib.get_close_matches(word, names_by_word, n=3 * NEAR_WORDS, cutoff=CLOSE_SPELLING)
    names = dict.fromkeys(name for match in close for name in sorted(names_by_word[match], key=len))
    return tuple(names)[:NEAR_WORDS]
