"""English nouns as prompts use them: articles and plurals, of single words and of names that end with the noun."""

from __future__ import annotations

_IRREGULAR = {
    "mouse": "mice", "sheep": "sheep", "deer": "deer", "wolf": "wolves", "leaf": "leaves", "die": "dice",
    "fish": "fish", "jellyfish": "jellyfish",
    "goose": "geese", "tooth": "teeth", "knife": "knives", "scarf": "scarves", "loaf": "loaves",
    "octopus": "octopuses", "tomato": "tomatoes", "volcano": "volcanoes",
    "bow and arrow": "bows and arrows",
}  # fmt: skip
_SINGULARS = {plural: singular for singular, plural in _IRREGULAR.items()}


def plural(name: str) -> str:
    """The plural of a noun, or of a name that ends with one: "fire truck" -> "fire trucks"."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    *before, noun = name.split(" ")
    if noun in _IRREGULAR:
        noun = _IRREGULAR[noun]
    elif noun.endswith("y") and noun[-2:-1] not in "aeiou":
        noun = noun[:-1] + "ies"
    else:
        noun += "es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s"
    return " ".join([*before, noun])


def singulars(word: str) -> set[str]:
    """The word and what its singular may be: "cherries" -> cherry, "boxes" -> box, "mice" -> mouse."""
    forms = {word}
    if word in _SINGULARS:
        forms.add(_SINGULARS[word])
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("es"):
            forms.add(word[:-2])
        if word.endswith("ies"):
            forms.add(word[:-3] + "y")
    return forms


def with_article(noun_phrase: str) -> str:
    """ "a" or "an" before it, by its first letter."""
    return f"{'an' if noun_phrase[0] in 'aeiou' else 'a'} {noun_phrase}"
