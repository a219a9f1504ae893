"""Valid files, and what happens to files on their way: parts dropped, nulled, reordered, retyped, cut, written anew."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

STRANGE: tuple[Any, ...] = (
    *(
        None,
        math.nan,
        math.inf,
        -1,
        0,
        7,
        0.5,
        2**63,
        2**70,
        1e300,
        True,
        "",
        " ",
        "none",
        "NaN",
        "1.0",
        "\0",
        "\ud83d",
    ),
    *("\u2028", "x" * 5000, "../../etc/passwd", [], {}, [None], [[[]]], {"a": {"b": []}}, {"bytes": None, "path": "x"}),
)
TEXTS = ("a red apple", "تفاحة 🍎", "👩‍👩‍👧‍👦", "a\u2028b\u0085c", 'a "12" pizza, 3d', "tab\there", "é" * 40)


def values(document: Any, rng: random.Random, edits: int = 2) -> Any:
    """`document`, of JSON values or what tables hold, with a few of its parts changed."""
    for _ in range(rng.randint(1, edits)):
        document = _edited(document, rng)
    return document


def _edited(value: Any, rng: random.Random) -> Any:
    inside = isinstance(value, dict | list) and value and rng.random() < 0.85
    if not inside:
        return rng.choice(STRANGE)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.25:
            return {name: each for name, each in value.items() if name != key}
        if kind < 0.35:
            return dict(rng.sample(list(value.items()), len(value)))
        return {**value, key: _edited(value[key], rng)}
    place = rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.15:
        return value[:place] + value[place + 1 :]
    if kind < 0.3:
        return rng.sample(value, len(value))
    if kind < 0.35:
        return [*value, value[place]]
    return [*value[:place], _edited(value[place], rng), *value[place + 1 :]]


def octets(content: bytes, rng: random.Random) -> bytes:
    """`content` with bytes lost, added, flipped, cut off or in another order."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        if not data:
            break
        start, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 8, 64))
        match rng.randrange(6):
            case 0:
                del data[start : start + length]
            case 1:
                data[start:start] = rng.randbytes(length)
            case 2:
                data[start] ^= 1 << rng.randrange(8)
            case 3:
                del data[start:]
            case 4:
                data[start : start + length] = bytes(length)
            case _:
                data[start:start] = data[start : start + length]
    return bytes(data)


ENCODINGS: tuple[Callable[[str], bytes], ...] = (
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda text: text.encode("utf-8-sig", "surrogatepass"),
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: text.replace("\n", "\r\n").encode("utf-8", "surrogatepass"),
    lambda text: text.encode("latin-1", "replace"),
)
FAITHFUL = 4  # of ENCODINGS, from the first: they keep every text without a lone surrogate


def dumped(rows: list[Any], rng: random.Random) -> str:
    """`rows` as a JSON list or as JSON lines."""
    if rng.random() < 0.5:
        return json.dumps(rows, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))
    return "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows)
