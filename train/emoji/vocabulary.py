"""Write the words that the emoji family knows, for prompt suggestions and for pointing out unknown words.

python -m train.emoji.vocabulary --out npo_core/emoji/vocabulary.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from train.emoji.concepts import BACKGROUNDS, COLOURS, STYLES, concepts
from train.emoji.motions import PHRASES

SUGGESTIONS = (
    "a cat, 3d style",
    "a red apple, cartoon style",
    "a rocket, 3d style, blue background",
    "a castle, flat style, pink background",
    "a blue cat, flat style",
    "a pizza, cartoon style, yellow background",
    "a guitar, 3d style",
    "a purple house, cartoon style, green background",
    "a rose, flat style",
    "a panda, 3d style, green background",
    "a hamburger, flat style, blue background",
    "a green dragon, cartoon style",
    "a robot, 3d style, purple background",
    "an owl, flat style, yellow background",
    "a pink balloon, 3d style",
    "a sailboat, cartoon style, blue background",
)


def vocabulary() -> dict[str, object]:
    """The content of vocabulary.json, as npo_core.catalog.prompts.load_guide reads it."""
    return {
        "concepts": {name: group for name, (group, _) in concepts().items()},
        "styles": list(STYLES),
        "backgrounds": list(BACKGROUNDS),
        "colours": list(COLOURS),
        "motions": list(PHRASES.values()),
        "suggestions": list(SUGGESTIONS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("npo_core/emoji/vocabulary.json"))
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(vocabulary(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
