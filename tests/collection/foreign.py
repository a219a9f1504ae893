"""Files as others write them, small: arena lines as FastChat's server logs them, tables with Pick-a-Pic's columns."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

MONDAY = 1_750_000_000.0


def arena_line(number: int, kind: str = "leftvote", prompt: str = "a small teapot", **changes: Any) -> dict[str, Any]:
    """The vote `number` between red-model and blue-model in the log of an arena."""
    states = [
        {
            "template_name": "raw",
            "messages": [["user", prompt], ["assistant", f"answer {number} {side}"]],
            "offset": 0,
            "conv_id": f"c{number}{side}",
            "model_name": model,
        }
        for side, model in (("a", "red-model"), ("b", "blue-model"))
    ]
    line = {"tstamp": MONDAY + number, "type": kind, "models": ["", ""], "states": states, "ip": "10.0.0.1"}
    return line | changes


def battle(number: int, winner: str = "model_a", **changes: Any) -> dict[str, Any]:
    """The vote `number` as FastChat's cleaning writes it."""
    line = {"model_a": "red", "model_b": "blue", "winner": winner, "judge": f"arena_user_{number}", "anony": True}
    return line | {"tstamp": MONDAY + number} | changes


def write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """JSON lines, every character as itself."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def picture(number: int) -> bytes:
    """A JPEG unlike those of other numbers."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number * 40 % 256, number * 80 % 256, 90)).save(buffer, "JPEG")
    return buffer.getvalue()


def pair(number: int, **changes: Any) -> dict[str, Any]:
    """A row of Pick-a-Pic in which the left picture was preferred."""
    row: dict[str, Any] = {
        "are_different": True,
        "best_image_uid": f"u{number}a",
        "caption": f"a red apple {number}, 3d style",
        "created_at": datetime(2026, 3, 4, 5, 6, number),
        "has_label": True,
        "image_0_uid": f"u{number}a",
        "image_0_url": "",
        "image_1_uid": f"u{number}b",
        "image_1_url": "",
        "jpg_0": picture(2 * number),
        "jpg_1": picture(2 * number + 1),
        "label_0": 1.0,
        "label_1": 0.0,
        "model_0": "alpha-lab/paint",
        "model_1": "beta-lab/draw",
        "ranking_id": number,
        "user_id": number % 3,
        "num_example_per_prompt": 1,
        "__index_level_0__": number,
    }
    return row | changes


def write_pairs(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """The rows as Parquet, with the types that their values have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path
