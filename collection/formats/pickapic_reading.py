"""Tables with Pick-a-Pic's columns, ours and other people's: what of them can be taken in as votes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from collection.account import said
from collection.database.people import PICK_A_PIC
from collection.errors import InputError
from collection.formats.foreign import Importable, LeftOut, UnusableError, comparison_of, digest, fitted, made_elsewhere
from collection.formats.pickapic import FRAME_MARK, MARK, REVERSED, Row, opened, rows_of
from collection.types import Choice, Generation, StoredBallot, StoredVote

UNKNOWN_FAMILY: Final = "pickapic"
MEDIA_TYPES: Final = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))


def read_pickapic(path: Path, known: Callable[[str], bool]) -> Iterator[Importable]:
    """The records of a Parquet file with these columns, or of all in a folder; row by row. A row that is no vote, or
    none that can be kept, says why.

    Where both pictures of a row, or the clips that they are frames of, are `known` here, the vote is about them. Of a
    clip's frames the first tells the vote. Raises InputError for a file that is no such table.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"The folder {path} holds no .parquet file; give one that does.")
    ours = _is_ours(files)
    seen: set[str] = set()
    rows = (row for file in files for row in rows_of(file))
    for number, row in enumerate(rows, start=1):
        try:
            yield from _records(row, ours, known, seen)
        except UnusableError as error:
            yield LeftOut(str(error), number)


def _is_ours(files: Sequence[Path]) -> bool:
    """Whether the models' names are "family/variant" as `write_pickapic` writes them: it says so, or (older exports)
    every row compares two variants of one family, and pictures without an address. Elsewhere a name with a slash is a
    lab's and its model's, and both together are the name."""
    tables = [opened(file) for file in files]
    marks = [(table.schema_arrow.metadata or {}).get(MARK) for table in tables]
    if REVERSED in marks:
        raise InputError(
            f"{files[marks.index(REVERSED)]} holds reversed pairs, in which what people rejected comes first; give an "
            "export of the format pickapic or jsonl."
        )
    if all(marks):
        return True
    columns = ["model_0", "model_1", "image_0_url", "image_1_url"]
    return all(_may_be_ours(row) for file in files for row in rows_of(file, columns))


def _may_be_ours(row: Row) -> bool:
    families = {str(row[name]).partition("/")[::2] for name in ("model_0", "model_1")}
    one_family = len({family for family, _ in families}) == 1 and all(variant for _, variant in families)
    return one_family and not (row["image_0_url"] or row["image_1_url"])


def _records(row: Row, ours: bool, known: Callable[[str], bool], seen: set[str]) -> Iterator[Importable]:
    choice, created_at, caption = _choice(row), _moment(row["created_at"]), row["caption"]
    if not isinstance(caption, str):
        raise UnusableError("no caption")
    uids = [row["image_0_uid"], row["image_1_uid"]]
    if not all(isinstance(uid, str) and uid for uid in uids) or uids[0] == uids[1]:
        raise UnusableError("not two pictures with ids")
    clips, frames = zip(*(_clip_and_frame(uid) for uid in uids), strict=True)
    if any(frame not in ("", "0") for frame in frames):
        raise UnusableError("another frame of a clip")
    sides = clips if all(map(known, clips)) else [fitted(uid) for uid in uids]
    made = [] if sides is clips else _generations(row, ours, created_at, seen)
    yield from made
    identity = digest(f"{row['ranking_id']} {tuple(uids)}")[:32]
    person = _person(said(row["user_id"]))
    yield StoredBallot(identity, sides[0], sides[1], person, True, "normal", None, comparison_of(caption), created_at)
    yield StoredVote(identity, identity, person, choice, choice, None, None, created_at, created_at)


def _person(user: Any) -> str:
    """A user's number as a name; other data sets have texts, which may say more and are hashed like any id."""
    if isinstance(user, float) and user.is_integer():
        user = int(user)
    return f"{PICK_A_PIC}{user}" if isinstance(user, int) else str(user or "unknown")


def _generations(row: Row, ours: bool, created_at: datetime, seen: set[str]) -> list[Generation]:
    """The pictures of a row that did not come in another one before."""
    made = []
    for side in ("0", "1"):
        uid, picture, model = row[f"image_{side}_uid"], row[f"jpg_{side}"], row[f"model_{side}"] or "unknown"
        picture = picture.get("bytes") if isinstance(picture, dict) else picture
        if uid in seen:
            continue
        if not picture:
            raise UnusableError("no picture")
        family, variant = model.split("/", 1) if ours else (UNKNOWN_FAMILY, model)
        media_type = next((name for start, name in MEDIA_TYPES if picture.startswith(start)), "image/jpeg")
        made.append(made_elsewhere(uid, family, variant, row["caption"], "image", picture, media_type, created_at))
    seen.update(row[f"image_{side}_uid"] for side in ("0", "1"))
    return made


def _clip_and_frame(uid: str) -> tuple[str, str]:
    """A clip's id and which of its frames this is; a picture's id and ""."""
    clip, mark, frame = uid.rpartition(FRAME_MARK)
    return (clip, frame) if mark and frame.isdecimal() else (uid, "")


def _choice(row: Row) -> Choice:
    label = said(row["label_0"])
    if label is None and (other := said(row["label_1"])) is not None:
        label = 1.0 - other
    if label is None:
        raise UnusableError("no label")
    choices: dict[float, Choice] = {1.0: "left", 0.0: "right", 0.5: "tie"}
    if label not in choices:
        raise UnusableError(f"the label {str(label)[:20]}")
    return choices[label]


def _moment(told: Any) -> datetime:
    """When a vote was given; without a time zone it is UTC."""
    try:
        moment = datetime.fromisoformat(told) if isinstance(told, str) else told
    except ValueError:
        moment = None
    if not isinstance(moment, datetime) or moment != moment:  # pandas' "not a time" is no time that equals itself
        raise UnusableError("no time")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
