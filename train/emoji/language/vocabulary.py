"""Write the words that the emoji family knows, for prompt suggestions and for pointing out unknown words.

python -m train.emoji.language.vocabulary --emojibase node_modules/emojibase-data --out npo_core/emoji/vocabulary.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, GROUNDS, STYLES, concepts
from train.emoji.drawing.motions import PHRASES
from train.emoji.language.synonyms import Meanings, read_meanings

SUGGESTIONS = (
    "a guitar next to a fire, night sky",
    "a red apple, cartoon style",
    "a cat on a chair, 3d style, night sky",
    "a blue cat, flat style",
    "two dogs, 3d style, grass",
    "a rocket, 3d style, sky",
    "a castle, flat style, snow",
    "a penguin next to a snowman, cartoon style, snow",
    "a palm tree next to a sailboat, flat style, beach",
    "a purple house, cartoon style, green background",
    "three stars, 3d style, night sky",
    "a panda, 3d style, green background",
    "a hamburger, flat style, blue background",
    "a green dragon on a castle, cartoon style",
    "a robot, 3d style, purple background",
    "an owl, flat style, night sky",
    "a pink balloon above a house, 3d style, sky",
    "a crab, cartoon style, beach",
    "a yellow umbrella, flat style, blue background",
    "a red car next to a tree, flat style, grass",
)


def vocabulary(meanings: Meanings) -> dict[str, object]:
    """The content of vocabulary.json, as npo_core.catalog.prompts.load_guide reads it."""
    return {
        "concepts": {name: group for name, (group, _) in concepts().items()},
        "styles": list(STYLES),
        "backgrounds": list(BACKGROUNDS),
        "grounds": list(GROUNDS),
        "colours": list(COLOURS),
        "motions": list(PHRASES.values()),
        "suggestions": list(SUGGESTIONS),
        "synonyms": meanings.exact,
        "related": meanings.related,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("npo_core/emoji/vocabulary.json"))
    parser.add_argument("--emojibase", type=Path, default=Path("node_modules/emojibase-data"))
    arguments = parser.parse_args()
    content = vocabulary(read_meanings(arguments.emojibase))
    arguments.out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
