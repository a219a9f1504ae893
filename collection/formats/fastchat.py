"""Votes as FastChat's arena writes them, a JSON line each, out and in; LMArena's later data sets in.

A line has the fields of FastChat's log (type, models, states, tstamp) and of its cleaned form (model_a, model_b,
winner, judge, anony), and three of ours by which the same vote is known again (family, ballot_id, vote_id). Addresses
(its field ip) are neither written nor kept. Votes that do not count (skips, repeats, checks, flagged ones) are left
out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from collection.account import said
from collection.files import replacing
from collection.formats.foreign import Importable, LeftOut, UnusableError, comparison_of, digest, fitted, made_elsewhere
from collection.formats.tables import is_table, table_rows
from collection.media.stores import Media
from collection.texts import json_entries
from collection.types import Choice, ExportedVote, StoredBallot, StoredVote
from collection.votes.which_count import counts

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
CHOSEN: Final[dict[str, Choice]] = {
    "both_bad": "both_bad",  # of LMArena's later data sets
    **{name: choice for names in (TYPES, WINNERS) for choice, name in names.items()},
}
JUDGES: Final = ("judge", "judge_hash", "evaluation_session_id", "ip")  # what says who voted, the surest first
HEADING: Final = re.compile(r"(?:#+\s*)?Model [AB](?:: *|$)")  # what its page shows in place of a name, or before it
TAG: Final = re.compile(r"<[^>]*>")


def write_fastchat(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """A line a vote, left = model_a."""
    written = 0
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for vote in votes:
            if counts(vote):
                file.write(json.dumps(_line(vote), ensure_ascii=False) + "\n")
                written += 1
    return written


def write_lmarena(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """A line a vote with the columns of LMArena's later data sets (arena-human-preference-140k), left = model_a."""
    written = 0
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for vote in votes:
            if counts(vote):
                file.write(json.dumps(_lmarena_line(vote), ensure_ascii=False) + "\n")
                written += 1
    return written


def read_fastchat(path: Path, known: Callable[[str], bool]) -> Iterator[Importable]:
    """The records of a log, a cleaned file, or a table of such lines; a line that is no vote, or none that can be kept,
    says why.

    What was shown is kept as text. A vote is known again by what its line says, so a log may be read again after it
    grew. Where both sides of a line are `known` here, the vote is about them.
    """
    seen: set[str] = set()
    rows = enumerate(table_rows(path), start=1) if is_table(path) else json_entries(path)
    for number, row in rows:
        try:
            yield from _records(_battle(row), known, seen)
        except UnusableError as error:
            yield LeftOut(str(error), number)


@dataclass(frozen=True)
class _Side:
    """What stood on one side: the model's name, the prompt, what was shown, and the conversation's id if it has one."""

    model: str
    prompt: str
    shown: str
    conversation: str | None


@dataclass(frozen=True)
class _Battle:
    """A line that is a vote. `family` is of our own exports."""

    vote_id: str
    ballot_id: str
    sides: tuple[_Side, _Side]
    choice: Choice
    person: str
    blind: bool
    created_at: datetime
    family: str | None


def _battle(row: Any) -> _Battle:
    if not isinstance(row, Mapping):
        raise UnusableError("no object")
    choice = _choice(row)
    states = _states(row)
    names, blind = _names(row, states)
    line = digest(json.dumps(row, sort_keys=True, default=_plain))[:32]
    return _Battle(
        vote_id=fitted(_text(row.get("vote_id")) or line),
        ballot_id=fitted(_text(row.get("ballot_id")) or line),
        sides=(_side(names[0], states[0]), _side(names[1], states[1])),
        choice=choice,
        person=next((str(row[name]) for name in JUDGES if row.get(name)), "unknown"),
        blind=blind,
        created_at=_moment(row),
        family=_text(row.get("family")),
    )


def _choice(row: Mapping[str, Any]) -> Choice:
    told = row.get("winner", row.get("type"))
    choice = CHOSEN.get(told) if isinstance(told, str) else None
    if choice is None:
        raise UnusableError("no winner" if told is None else f"no vote but {str(told)[:20]!r}")
    return choice


def _states(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is told of the two sides: FastChat's states, or LMArena's conversations."""
    states = row.get("states")
    if states is None:
        states = [{"messages": row.get(name)} if row.get(name) else {} for name in ("conversation_a", "conversation_b")]
    if not (isinstance(states, list) and len(states) == 2 and all(isinstance(state, Mapping) for state in states)):
        raise UnusableError("not two states")
    return states


def _names(row: Mapping[str, Any], states: list[Mapping[str, Any]]) -> tuple[list[str], bool]:
    """The models' names, and whether they were hidden: as FastChat reads its own log, where the models that the page
    showed are empty or "Model A" as long as they are hidden, and a state has the name."""
    if "model_a" in row or "model_b" in row:
        names = [_text(row.get(name)) for name in ("model_a", "model_b")]
        hidden = bool(row.get("anony", "conversation_a" in row))
    else:
        shown = row.get("models")
        if not isinstance(shown, list) or len(shown) != 2 or None in shown:
            raise UnusableError("no names of models")
        plain = [HEADING.sub("", TAG.sub("", str(name)).strip()).strip() for name in shown]
        if bool(plain[0]) != bool(plain[1]):
            raise UnusableError("one name hidden and one shown")
        hidden = not plain[0]
        names = [_text(state.get("model_name")) or name for state, name in zip(states, plain, strict=True)]
    if not all(names):
        raise UnusableError("no names of models")
    return [str(name) for name in names], hidden


def _side(model: str, state: Mapping[str, Any]) -> _Side:
    shown = json.dumps(state, ensure_ascii=False, sort_keys=True, default=_plain)
    return _Side(model, _prompt(state), shown, _text(state.get("conv_id")))


def _prompt(state: Mapping[str, Any]) -> str:
    """What was asked first: [role, text] as FastChat has it, {role, content} as LMArena, or `prompt` as GenAI-Arena."""
    messages = state.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, Mapping):
            role, content = message.get("role"), message.get("content")
        elif isinstance(message, list) and len(message) > 1:
            role, content = message[:2]
        else:
            continue
        if isinstance(role, str) and role.lower() in ("user", "human"):
            return _words(content)
    return _words(state.get("prompt"))


def _words(content: Any) -> str:
    """The text in a message, which may be a list of texts, pictures and objects with either."""
    if isinstance(content, list):
        return next((words for words in map(_words, content) if words), "")
    if isinstance(content, Mapping):
        return _words(content.get("text"))
    return content if isinstance(content, str) else ""


def _moment(row: Mapping[str, Any]) -> datetime:
    told = next((said(row[name]) for name in ("tstamp", "timestamp") if name in row), None)
    try:
        if isinstance(told, str | datetime):
            moment = datetime.fromisoformat(told) if isinstance(told, str) else told
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(told, int | float):
            return datetime.fromtimestamp(float(told), UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise UnusableError("no time")


def _plain(value: Any) -> str:
    """What JSON has no word for, as tables have it: a time, or the bytes of a picture by their hash."""
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str | None:
    """A text that says something; None for anything else."""
    return value if isinstance(value, str) and value.strip() else None


def _records(battle: _Battle, known: Callable[[str], bool], seen: set[str]) -> Iterator[Importable]:
    sides, moment = battle.sides, battle.created_at
    here = [side.conversation for side in sides if side.conversation and known(side.conversation)]
    ids = [_identity(side, f"{battle.vote_id}-{place}") for place, side in enumerate(sides)]
    if len(here) == 2:
        ids = here
        seen.update(here)
    if ids[0] == ids[1]:
        raise UnusableError("the same on both sides")
    for identity, side in zip(ids, sides, strict=True):
        if identity not in seen:
            seen.add(identity)
            family, variant = FAMILY, side.model
            if battle.family and side.model.startswith(f"{battle.family}/"):
                family, variant = battle.family, side.model.removeprefix(f"{battle.family}/")
            shown = side.shown.encode("utf-8", "backslashreplace")
            yield made_elsewhere(identity, family, variant, side.prompt, "text", shown, "text/plain", moment)
    ballot = (battle.ballot_id, ids[0], ids[1], battle.person, battle.blind, "normal", None)
    yield StoredBallot(*ballot, comparison_of(sides[0].prompt), moment)  # type: ignore[arg-type]
    choice = battle.choice
    yield StoredVote(battle.vote_id, battle.ballot_id, battle.person, choice, choice, None, None, moment, moment)


def _identity(side: _Side, otherwise: str) -> str:
    return digest(f"{side.conversation or otherwise} {side.model}{side.shown}")[:32]


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
        "family": vote.left.family,
        "ballot_id": vote.ballot.id,
        "vote_id": vote.vote.id,
    }


def _lmarena_line(vote: ExportedVote) -> dict[str, Any]:
    """Names that we know nothing for are null; conversations are of one turn, with what was shown told by its hash."""
    line = _line(vote)
    shown = [state["messages"][1][1] for state in line["states"]]
    asked = [_said("user", vote.left.prompt)]
    conversations = [[*asked, _said("assistant", text)] for text in shown]
    turn = {"user": asked[0], "model_side_a": conversations[0][1], "model_side_b": conversations[1][1]}
    return {
        "id": vote.vote.id,
        "model_a": line["model_a"],
        "model_b": line["model_b"],
        "winner": "both_bad" if vote.vote.choice == "both_bad" else line["winner"],
        "evaluation_session_id": vote.vote.participant_id,
        "evaluation_order": 1,
        "conversation_a": conversations[0],
        "conversation_b": conversations[1],
        "full_conversation": [turn],
        "conv_metadata": None,
        "category_tag": None,
        "language": None,
        "is_code": False,
        "timestamp": vote.vote.created_at.isoformat(),
        **{name: line[name] for name in ("anony", "family", "ballot_id", "vote_id")},
    }


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text, "image": None, "mimeType": None}]}
