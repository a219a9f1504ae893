"""The words a small model knows: suggestions, words it has never seen, and prompts put together from choices.

The prompts it was trained on read "a[n] [colour] CONCEPT[ MOTION], STYLE style[, COLOUR background]".
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, fields
from pathlib import Path

from npo_core.errors import InputError

NEAR_WORDS = 3

# Words that steer no picture, and those of the prompt's own grammar: never worth pointing out.
_STOP_WORDS = """
a an the and or of in on at with without to for by from as is are it its my your this that some one two three
style background picture image icon emoji
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class PromptGuide:
    """The vocabulary of a family. `concepts` maps each thing it can draw to its group ("cat face" -> "animals").
    `motions` are the phrases for what things do in clips ("sliding left"); none where it makes only pictures."""

    concepts: dict[str, str]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...]
    suggestions: tuple[str, ...]
    motions: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnknownWord:
    """A word of a prompt that is nowhere in the vocabulary, and the nearest names that are."""

    word: str
    near: tuple[str, ...]


def load_guide(path: str | Path) -> PromptGuide:
    """The guide in a `vocabulary.json`; raises InputError when it cannot be read or lacks a part."""
    try:
        content = {"motions": [], **json.loads(Path(path).read_text(encoding="utf-8-sig"))}
        lists = {entry.name: tuple(content[entry.name]) for entry in fields(PromptGuide) if entry.name != "concepts"}
        return PromptGuide(concepts=dict(content["concepts"]), **lists)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"The vocabulary {path} cannot be read ({error}); it is a JSON object with "
            f"{', '.join(entry.name for entry in fields(PromptGuide))}."
        ) from None


def unknown_words(prompt: str, guide: PromptGuide) -> tuple[UnknownWord, ...]:
    """The words of `prompt` that the guide has in no name, each once, in order, with up to NEAR_WORDS near names.

    Plurals count as their singular, and every word of a longer name ("cat" of "cat face") as known.
    """
    names = [*guide.concepts, *guide.styles, *guide.backgrounds, *guide.colours, *guide.motions]
    names_by_word: dict[str, list[str]] = {}
    for name in names:
        for form in {form for word in _words(name) for form in _singulars(word)}:
            names_by_word.setdefault(form, []).append(name)
    return tuple(
        UnknownWord(word, _near(word, names_by_word))
        for word in dict.fromkeys(_words(prompt))
        if word not in STOP_WORDS and not word.isdigit() and not _singulars(word) & names_by_word.keys()
    )


def compose(prompt: str, style: str | None = None, background: str | None = None) -> str:
    """`prompt` in the order of the training prompts: compose("a red apple", "3d", "blue") is
    "a red apple, 3d style, blue background".

    A style or background that the prompt already names is replaced; with None it is kept, with "" it is dropped.
    """
    chosen = {"style": style, "background": background}
    subject = []
    for clause in filter(None, (part.strip() for part in prompt.split(","))):
        *choice, kind = clause.lower().split()
        if kind not in chosen or len(choice) not in (1, 2):  # "a cat in style" is about the cat
            subject.append(clause)
        elif chosen[kind] is None:
            chosen[kind] = clause[: -len(kind)].strip()
    return ", ".join([*subject, *(f"{choice} {kind}" for kind, choice in chosen.items() if choice)])


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
    return re.findall(r"\w+", text.lower().replace("'s ", " "))


def _singulars(word: str) -> set[str]:
    """The word and what its singular may be: "cherries" -> cherry, "boxes" -> box, "apples" -> apple."""
    forms = {word}
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return forms


def _near(word: str, names_by_word: dict[str, list[str]]) -> tuple[str, ...]:
    """The names nearest in spelling; of the names that share a word, the shortest first."""
    close = difflib.get_close_matches(word, names_by_word, n=3 * NEAR_WORDS, cutoff=0.65)
    names = dict.fromkeys(name for match in close for name in sorted(names_by_word[match], key=len))
    return tuple(names)[:NEAR_WORDS]
