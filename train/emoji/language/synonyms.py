"""Other words and emoji characters for what the emoji family draws, from the names and tags of emojibase-data (MIT)."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npo_core.catalog.nouns import singulars
from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, GROUNDS, STYLES, concepts
from train.emoji.drawing.motions import PHRASES

DRAWABLE_GROUPS = (0, 3, 4, 5, 6, 7)  # emojibase's smileys, nature, food, places, activities, objects
MOST_RELATED = 3
LEAST_LIKENESS = 0.12
LONGEST_PHRASE = 2  # words: nobody types "smiling face with sunglasses"
VARIATIONS = {0xFE0F: None, 0xFE0E: None}  # ask for a coloured or a plain picture of the same character
_OTHER_WORDS = """
    kitten kitty: cat; puppy doggy hound: dog; pony racehorse: horse; bunny hare: rabbit; piglet: pig; lamb: sheep;
    tortoise terrapin: turtle; serpent: snake; bumblebee honeybee: bee; ladybird: ladybug; slug: snail; dino:
    dinosaur; conch seashell: shell; grizzly: bear; hen: chicken; fish goldfish: tropical fish; alligator:
    crocodile; calf: cow; toad: frog; hippo rhino: rhinoceros; toadstool fungus: mushroom; houseplant: potted plant;
    evergreen: pine tree; nectarine mandarin: orange; aubergine: eggplant; maize: corn; toast loaf: bread; hotcake:
    pancakes; burger: hamburger; sausage frankfurter hotdog: hot dog; ramen soup pho: noodles; donut: doughnut;
    biscuit: cookie; muffin: cupcake; cake: birthday cake; sweets: candy; fries: french fries; tea cappuccino
    espresso latte: coffee; boba: bubble tea; ale pint lager: beer; martini: cocktail; chapel cathedral: church;
    palace fortress: castle; home cottage hut: house; earth world: globe; hill: mountain; railway locomotive tram:
    train; firetruck: fire truck; cab: taxi; automobile: car; lorry van: truck; bike: bicycle; moped motorbike
    motorcycle: scooter; boat yacht: sailboat; plane aeroplane jet: airplane; copter: helicopter; spaceship
    spacecraft: rocket; ufo: flying saucer; luggage: suitcase; saturn: planet; sunshine: sun; thunder thunderbolt:
    lightning; campfire bonfire flame flames: fire; raindrop water: droplet; gift: present; prize: trophy; racquet:
    tennis ball; dart bullseye: target; dice: die; jigsaw: puzzle piece; toy plush: teddy bear; paint: palette;
    eyeglasses sunglasses spectacles: glasses; tie: necktie; shirt tshirt: t-shirt; pants trousers: jeans; mittens:
    gloves; stockings: socks; purse bag: handbag; rucksack: backpack; shoe shoes: sneaker; heels: high heel; king
    queen: crown; gem jewel gemstone: diamond; loudspeaker: megaphone; mic: microphone; sax: saxophone; violin
    fiddle: violin; banjo ukulele: guitar; drums: drum; smartphone telephone mobile: phone; computer notebook:
    laptop; tv: television; lamp: light bulb; novel: book; money cash: money bag; mail: mailbox; pen: pencil;
    padlock: lock; hatchet: axe; bow arrow: bow and arrow; medicine: pill; gate: door; seat sofa stool table: chair;
    pail: bucket; clock: alarm clock; wristwatch: watch; smiley smile grin: happy face; demon: devil; skeleton:
    skull; poo: poop; android: robot; spirit: ghost; pancake: pancakes; strawberries: strawberry; clouds: cloud;
    scarlet crimson: red; violet lilac: purple; golden gold: yellow; navy turquoise cyan: blue; lime: green;
    magenta: pink; sea ocean shore seaside sand: beach; meadow lawn field garden park: grass; stars starry midnight:
    night sky; snowy winter ice: snow
"""
# Words for many things: those that have the word among their tags are suggested.
_KINDS = """
    animal pet bird insect bug flower fruit berry vegetable dessert drink breakfast food building vehicle tool
    weather sport clothes clothing instrument music monster creature reptile seafood citrus zodiac celebration
    travel
"""
OTHER_WORDS = {
    word: " ".join(name.split())
    for words, name in (item.split(":") for item in _OTHER_WORDS.split(";"))
    for word in words.split()
}


@dataclass
class Meanings:
    """exact: word, phrase or emoji character -> what the model calls it. related: the same, not drawn itself -> up to
    three things of the family that come near."""

    exact: dict[str, str] = field(default_factory=dict)
    related: dict[str, list[str]] = field(default_factory=dict)


def known_words() -> set[str]:
    """Every word that is part of a name, in every form that may be its singular."""
    names = [*concepts(), *STYLES, *BACKGROUNDS, *GROUNDS, *COLOURS, *PHRASES.values()]
    return {form for name in names for word in name.lower().split() for form in singulars(word)}


def read_meanings(emojibase: Path) -> Meanings:
    """What the package `emojibase` (a folder) says of other words."""
    entries = [
        entry for entry in json.loads((emojibase / "en/data.json").read_text()) if entry.get("group") in DRAWABLE_GROUPS
    ]
    ours = {label: name for name, (_, label) in concepts().items()}
    drawn = {ours[entry["label"]]: _tags(entry) for entry in entries if entry["label"] in ours}
    weights = _weights([_tags(entry) for entry in entries])
    known, meanings = known_words(), Meanings()
    for kind in _KINDS.split():
        meanings.related[kind] = [name for name, tags in drawn.items() if kind in tags][:MOST_RELATED]
    for entry in entries:
        label = entry["label"].lower()
        name = ours.get(entry["label"]) or _called(label)
        words = [entry["emoji"].translate(VARIATIONS)]
        parts = re.findall(r"\w+", label)
        if len(parts) <= LONGEST_PHRASE and not set(parts) <= known:
            words.append(label)
        for word in words:
            if name:
                meanings.exact[word] = name
            elif near := _nearest(_tags(entry), drawn, weights):
                meanings.related[word] = near
    for word, name in OTHER_WORDS.items():
        if word not in known:
            meanings.exact[word] = name
    meanings.related = {word: near for word, near in meanings.related.items() if near and word not in meanings.exact}
    return meanings


def _tags(entry: Mapping[str, Any]) -> frozenset[str]:
    return frozenset({*(tag.lower() for tag in entry.get("tags", ())), *entry["label"].lower().split()})


def _weights(tags: Sequence[frozenset[str]]) -> dict[str, float]:
    """How much a tag says: the logarithm of how rare it is."""
    counts = Counter(tag for each in tags for tag in each)
    return {tag: math.log(len(tags) / count) for tag, count in counts.items()}


def _called(label: str) -> str | None:
    """The label itself where it is a thing of ours, or one in a colour: "green apple"."""
    colour, _, name = label.partition(" ")
    return label if label in concepts() or (colour in COLOURS and name in concepts()) else None


def _nearest(tags: frozenset[str], drawn: Mapping[str, frozenset[str]], weights: Mapping[str, float]) -> list[str]:
    """The things whose tags say the most that is said of it, too; none where they have only the commonest in common."""

    def weight(some: Iterable[str]) -> float:
        return sum(weights[tag] for tag in some)

    likeness = {name: weight(tags & theirs) / weight(tags | theirs) for name, theirs in drawn.items()}
    ranked = sorted(likeness, key=lambda name: -likeness[name])
    return [name for name in ranked if likeness[name] > LEAST_LIKENESS][:MOST_RELATED]
