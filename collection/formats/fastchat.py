"""Votes as FastChat's arena writes them, a JSON line each, out and in.

A line has the fields of its log (type, models, states, tstamp) and of its cleaned form (model_a, model_b, winner,
judge, anony). Addresses (its field ip) are neither written nor kept. Votes that do not count (skips, repeats, checks,
flagged ones) are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from collection.errors import InputError
from collection.files import replacing
from collection.formats.pickapic import comparison_of, made_elsewhere
from collection.media.stores import Media
from collection.texts import json_entries, read_text
from collection.types import Choice, ExportedVote, Generation, StoredBallot, StoredVote

FAMILY: Final = "fastchat"
TYPES: Final[dict[Choice, str]] = {
    "left": "leftvote",
    "right": "rightvote",
    "tie": "tievote",
    "both_bad": "bothbad_vote",
}
WINNERS: Final[dict[Choice, str]] = {
    "left": "model_a",
    "right": "model_b",
    "tie": "tie",
    "both_bad": "tie (bothbad)",
}


def write_fastchat(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """A line a vote, left = model_a."""
    written = 0
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for vote in votes:
            if vote.counts:
                file.write(json.dumps(_line(vote), ensure_ascii=False) + "\n")
                written += 1
    return written


def read_fastchat(path: Path) -> Iterator[Generation | StoredBallot | StoredVote]:
    """The records of a log or a cleaned file. Lines that are no votes (upvote, flag, chat) are passed over.

    What was shown is kept as text. A judge is kept as a hash keyed with the file: the same within it, told to nobody.
    """
    salt = hashlib.sha256(read_text(path).encode()).digest()
    seen: set[str] = set()
    for number, row in json_entries(path):
        try:
            yield from _records(row, number, salt, seen)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"Line {number} of {path} is no vote of FastChat's ({error!r}).") from None


def _line(vote: ExportedVote) -> dict[str, Any]:
    sides = (vote.left, vote.right)
    models = [f"{side.family}/{side.variant}" for side in sides]
    choice = vote.vote.choice
    states = [
        {
            "model_name": model,
            "conv_id": side.id,
            "messages": [["user", side.prompt], ["assistant", f"{side.media_type} {side.media_sha256}"]],
        }
        for model, side in zip(models, sides, strict=True)
    ]
    return {
        "tstamp": vote.vote.created_at.timestamp(),
        "type": TYPES[choice],
        "models": models,
        "states": states,
        "model_a": models[0],
        "model_b": models[1],
        "winner": WINNERS[choice],
        "judge": vote.vote.participant_id,
        "anony": vote.ballot.blind,
    }


def _records(
    row: dict[str, Any], number: int, salt: bytes, seen: set[str]
) -> Iterator[Generation | StoredBallot | StoredVote]:
    choice = _choice(row)
    if choice is None:
        return
    created_at = datetime.fromtimestamp(float(row["tstamp"]), UTC)
    models = [row["model_a"], row["model_b"]] if "model_a" in row else row["models"]
    states = row.get("states") or [{}, {}]
    unique = hashlib.sha256(salt + str(number).encode()).hexdigest()[:32]
    made, prompts = [], []
    for side, (model, state) in enumerate(zip(models, states, strict=True)):
        name = model or state["model_name"]
        family, slash, variant = name.partition("/")
        messages = state.get("messages") or []
        prompt = next((text for role, text, *_ in messages if role.lower() in ("user", "human")), "")
        uid = str(state.get("conv_id") or f"{unique}-{side}")
        shown = json.dumps(state, ensure_ascii=False, sort_keys=True).encode()
        identity = hashlib.sha256(f"{uid} {name}".encode() + shown).hexdigest()[:32]
        made.append(identity)
        prompts.append(prompt)
        if identity not in seen:
            seen.add(identity)
            if not slash:
                family, variant = FAMILY, name
            yield made_elsewhere(identity, family[:64], variant[:64], prompt, "text", shown, "text/plain", created_at)
    judge = str(row.get("judge") or row.get("ip") or "unknown")
    person = "fastchat-" + hashlib.sha256(salt + judge.encode()).hexdigest()[:32]
    blind = bool(row.get("anony", not all(models)))
    yield StoredBallot(unique, made[0], made[1], person, blind, "normal", None, comparison_of(prompts[0]), created_at)
    yield StoredVote(unique, unique, person, choice, choice, None, None, created_at, created_at)


def _choice(row: dict[str, Any]) -> Choice | None:
    said = row.get("winner", row.get("type"))
    for names in (WINNERS, TYPES):
        for choice, name in names.items():
            if said == name:
                return choice
    return None
