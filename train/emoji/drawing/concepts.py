"""What the emoji family can draw: concept names by group, each with the label its art is filed under.

"name" means that the art's English label is the same; "name=label" gives the name people type to art that is filed
under another label (a cat is drawn as the face, which reads better in a small picture than the whole animal).
Look-alikes that even people mix up (a dozen smiling faces, two kinds of camel) are left out.
"""

from __future__ import annotations

STYLES = ("3d", "cartoon", "flat")
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "yellow": (255, 226, 130),
    "blue": (160, 200, 250),
    "green": (170, 225, 165),
    "pink": (252, 185, 205),
    "purple": (200, 175, 245),
}
GROUNDS: dict[str, str] = {  # painted behind the things, and how a caption may say where the things are
    "sky": "in the sky",
    "night sky": "under a night sky",
    "grass": "on grass",
    "beach": "on a beach",
    "snow": "in the snow",
}
BACKDROPS = (*BACKGROUNDS, *GROUNDS)
COLOURS: dict[str, float] = {  # hue in turns
    "red": 0.0,
    "orange": 0.075,
    "yellow": 0.145,
    "green": 0.34,
    "blue": 0.60,
    "purple": 0.76,
    "pink": 0.92,
}

_GROUPS = {
    "animals": """
        cat=cat face; dog=dog face; fox; wolf; raccoon; lion; tiger=tiger face; horse; unicorn; zebra; deer; cow=cow
        face; pig=pig face; mouse=mouse face; rabbit=rabbit face; bear; koala; panda; monkey=monkey face; elephant;
        giraffe; camel; kangaroo; sheep=ewe; rhinoceros; hedgehog; bat; chicken; rooster; penguin; eagle; duck; owl;
        flamingo; peacock; parrot; frog; crocodile; turtle; snake; dragon=dragon face; dinosaur=sauropod;
        whale=spouting whale; dolphin; tropical fish; shark; octopus; jellyfish; crab; lobster; shell=spiral shell;
        snail; butterfly; ant; bee=honeybee; ladybug=lady beetle; spider web""",
    "plants": """
        rose; sunflower; tulip; bouquet; potted plant; pine tree=evergreen tree; tree=deciduous tree; palm tree;
        cactus; clover=four leaf clover; maple leaf; mushroom""",
    "food": """
        grapes; watermelon; orange=tangerine; lemon; banana; pineapple; apple=red apple; pear; peach; cherries;
        strawberry; blueberries; kiwi=kiwi fruit; tomato; avocado; eggplant; carrot; corn=ear of corn; pepper=bell
        pepper; broccoli; onion; bread; croissant; baguette=baguette bread; pretzel; pancakes; cheese=cheese wedge;
        hamburger; french fries; pizza; hot dog; taco; fried egg=cooking; popcorn; noodles=steaming bowl; sushi; ice
        cream cone=soft ice cream; ice cream; doughnut; cookie; birthday cake; cupcake; candy; lollipop; milk=glass
        of milk; coffee=hot beverage; teapot; wine=wine glass; cocktail=cocktail glass; beer=beer mug; bubble tea""",
    "places": """
        volcano; mountain=mount fuji; house; castle; church; tent; fountain; ferris wheel; globe=globe showing
        Americas; compass""",
    "travel": """
        train; bus; ambulance; fire truck=fire engine; police car; taxi; car=automobile; truck=delivery truck;
        tractor; scooter=motor scooter; bicycle; traffic light=vertical traffic light; stop sign; anchor; sailboat;
        ship; airplane; helicopter; rocket; flying saucer; suitcase=luggage""",
    "sky": """
        full moon; moon=crescent moon; sun; planet=ringed planet; star; cloud; rainbow; umbrella; snowflake;
        snowman; fire; droplet; lightning=high voltage""",
    "fun": """
        pumpkin=jack-o-lantern; christmas tree=Christmas tree; balloon; present=wrapped gift; trophy; soccer ball;
        baseball; basketball; football=american football; tennis ball=tennis; boxing glove; target=bullseye; kite;
        eight ball=pool 8 ball; crystal ball; magic wand; video game; die=game die; puzzle piece; teddy bear;
        palette=artist palette""",
    "clothes": """
        glasses; necktie; t-shirt; jeans; gloves; socks; dress; handbag; backpack; sneaker=running shoe; high
        heel=high-heeled shoe; crown; top hat; cap=billed cap; graduation cap; ring; diamond=gem stone""",
    "things": """
        bell; megaphone; microphone; headphones=headphone; radio; saxophone; trumpet; guitar; violin; drum;
        phone=mobile phone; laptop; television; camera; movie camera; magnifying glass=magnifying glass tilted left;
        light bulb; lantern=red paper lantern; candle; book=closed book; books; scroll; money bag; mailbox=closed
        mailbox with raised flag; pencil; calendar; scissors; lock=locked; key; hammer; axe; bomb; bow and arrow;
        magnet; ladder; microscope; telescope; pill; door; chair; broom; bucket; toothbrush; alarm clock;
        hourglass=hourglass done; watch""",
    "faces": """
        happy face=grinning face; laughing face=face with tears of joy; heart eyes
        face=smiling face with heart-eyes; winking face; cool face=smiling face with sunglasses; thinking face;
        sleeping face; crying face=loudly crying face; angry face=enraged face; sick face=nauseated face;
        cowboy=cowboy hat face; skull; poop=pile of poo; clown=clown face; ghost; alien; robot;
        devil=smiling face with horns; heart=red heart; broken heart""",
}

_UNCOUNTABLE = """
    grapes; cherries; blueberries; broccoli; corn; bread; pancakes; french fries; popcorn; noodles; sushi; milk; coffee;
    wine; glasses; jeans; gloves; socks; headphones; book; books; scissors; fire; lightning; spider web
"""
_PLURAL_OR_MASS = """
    grapes; cherries; blueberries; broccoli; corn; bread; pancakes; french fries; popcorn; noodles; sushi; milk; coffee;
    wine; glasses; jeans; gloves; socks; headphones; books; scissors; lightning; poop; ice cream;
    cheese
"""
# What things can stand on, and how deep they sink into it, in widths of its picture.
_SUPPORTS = """
    chair 0.45; book 0.06; books 0.04; suitcase 0.12; house 0.1; castle 0.1; car 0.06; truck 0.06; bus 0.06; train 0.08;
    ship 0.2; sailboat 0.4; mountain 0.12; elephant 0.08; horse 0.1; camel 0.1; turtle 0.1; whale 0.15; cloud 0.15;
    pizza 0.15; birthday cake 0.25; drum 0.12; television 0.08; laptop 0.3; present 0.1; mailbox 0.08; planet 0.12;
    full moon 0.06; radio 0.1; hamburger 0.06; pumpkin 0.12; bucket 0.08; tractor 0.1; cheese 0.15; mushroom 0.08;
    volcano 0.15; top hat 0.05; bread 0.1; pancakes 0.08; taxi 0.06; ambulance 0.06
"""


def _items(text: str) -> list[str]:
    return " ".join(text.split()).split("; ")


UNCOUNTABLE = frozenset(_items(_UNCOUNTABLE))  # never captioned "two ..."
WITHOUT_ARTICLE = frozenset(_items(_PLURAL_OR_MASS))  # "grapes, 3d style", not "a grapes"
SUPPORTS: dict[str, float] = {item.rpartition(" ")[0]: float(item.rpartition(" ")[2]) for item in _items(_SUPPORTS)}


def concepts() -> dict[str, tuple[str, str]]:
    """Concept name -> (group, label of its art), in a fixed order."""
    found: dict[str, tuple[str, str]] = {}
    for group, text in _GROUPS.items():
        for item in _items(text):
            name, _, label = item.partition("=")
            found[name] = (group, label or name)
    return found
