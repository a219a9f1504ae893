"""Votes as Parquet with the 19 columns and types of Pick-a-Pic v1 (yuvalkirstain/pickapic_v1). The way back is in
pickapic_reading.py.

A clip is told by CLIP_FRAMES of its frames, a row each. "Both bad" prefers neither, so it is a tie: best_image_uid
"none", labels 0.5, has_label False. Votes that do not count are left out: skips, repeats, checks, flagged ones, and
those given when the names were known.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from collection.database.people import user_number
from collection.errors import InputError
from collection.files import replacing
from collection.formats.tables import UNREADABLE, reason_of
from collection.media.stores import Media
from collection.types import ExportedVote
from collection.votes.which_count import counts

ROWS_PER_GROUP: Final = 200
CLIP_FRAMES: Final = 4
FRAME_MARK: Final = "#"  # between a clip's id and the number of its frame
SPLITS: Final = ("train", "validation", "test")
PICK_A_PIC_COLUMNS: Final = {
    "are_different": "bool",
    "best_image_uid": "string",
    "caption": "string",
    "created_at": "timestamp[ns]",
    "has_label": "bool",
    "image_0_uid": "string",
    "image_0_url": "string",
    "image_1_uid": "string",
    "image_1_url": "string",
    "jpg_0": "binary",
    "jpg_1": "binary",
    "label_0": "float64",
    "label_1": "float64",
    "model_0": "string",
    "model_1": "string",
    "ranking_id": "int64",
    "user_id": "int64",
    "num_example_per_prompt": "int64",
    "__index_level_0__": "int64",
}
MARK: Final = b"diffusion-npo-lab"  # in a file's metadata: its models' names are "family/variant", and which way
AS_VOTED: Final = b"as voted"
REVERSED: Final = b"reversed"
SCHEMA: Final = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in PICK_A_PIC_COLUMNS.items()])

Row = dict[str, Any]


def write_pickapic(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """One file, where `path` ends in .parquet, or a folder with train, validation and test split by prompt."""
    return _write(votes, media, path, reverse=False)


def write_npo(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """Reversed pairs for any trainer that reads Pick-a-Pic: the rejected picture has label 1. Ties and "both bad" are
    left out: they order no pair, reversed or not. (`train.npo` reverses by itself: give it `pickapic`.)"""
    return _write(votes, media, path, reverse=True)


def split_of(prompt: str) -> str:
    """The split that all votes on a prompt belong to: of ten prompts about eight are for training."""
    place = _stable_int(prompt) % 10
    return {0: "validation", 1: "test"}.get(place, "train")


def _write(votes: Iterable[ExportedVote], media: Media, path: Path, *, reverse: bool) -> int:
    """Two passes of constant memory: the first counts the examples of each prompt, the second writes the count."""
    single = path.suffix == ".parquet"
    if not single:
        path.mkdir(parents=True, exist_ok=True)
    files = {split: path if single else path / f"{split}.parquet" for split in ((SPLITS[0],) if single else SPLITS)}
    per_prompt: Counter[str] = Counter()
    written = 0
    with ExitStack() as stack:
        parts = {split: stack.enter_context(replacing(file)) for split, file in files.items()}
        drafts = {split: part.with_suffix(".draft") for split, part in parts.items()}
        for draft in drafts.values():
            stack.callback(draft.unlink, missing_ok=True)
        with ExitStack() as open_files:
            tables = {split: open_files.enter_context(_Table(draft, reverse)) for split, draft in drafts.items()}
            for vote in votes:
                rows = _rows(vote, media, reverse)
                written += bool(rows)
                for row in rows:
                    per_prompt[row["caption"]] += 1
                    tables[SPLITS[0] if single else split_of(row["caption"])].add(row)
        for split, part in parts.items():
            with _Table(part, reverse) as table:
                for row in rows_of(drafts[split]):
                    table.add(row | {"num_example_per_prompt": per_prompt[row["caption"]]})
    return written


class _Table:
    """A Parquet file that is written a group of rows at a time."""

    def __init__(self, path: Path, reverse: bool) -> None:
        self._schema = SCHEMA.with_metadata({MARK: REVERSED if reverse else AS_VOTED})
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []
        self._count = 0

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._writer.close()

    def add(self, row: Row) -> None:
        self._rows.append(row | {"__index_level_0__": self._count})
        self._count += 1
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _rows(vote: ExportedVote, media: Media, reverse: bool) -> list[Row]:
    choice = vote.vote.choice
    decided = choice in ("left", "right")
    if not counts(vote) or not vote.ballot.blind or vote.left.modality == "text" or (reverse and not decided):
        return []
    label_0 = (float(choice == "left") if decided else 0.5) if not reverse else float(choice == "right")
    models = [f"{generation.family}/{generation.variant}" for generation in (vote.left, vote.right)]
    rows = []
    for mark, left, right in _pictures(vote, media):
        uids = (f"{vote.left.id}{mark}", f"{vote.right.id}{mark}")
        rows.append(
            {
                "are_different": models[0] != models[1],
                "best_image_uid": {1.0: uids[0], 0.0: uids[1]}.get(label_0, "none"),
                "caption": vote.left.prompt,
                "created_at": vote.vote.created_at.astimezone(UTC).replace(tzinfo=None),
                "has_label": decided,
                "image_0_uid": uids[0],
                "image_0_url": "",
                "image_1_uid": uids[1],
                "image_1_url": "",
                "jpg_0": left,
                "jpg_1": right,
                "label_0": label_0,
                "label_1": 1.0 - label_0,
                "model_0": models[0],
                "model_1": models[1],
                "ranking_id": _stable_int(vote.ballot.id),
                "user_id": user_number(vote.vote.participant_id),
                "num_example_per_prompt": 0,
            }
        )
    return rows


def _pictures(vote: ExportedVote, media: Media) -> Sequence[tuple[str, bytes, bytes]]:
    """(mark, left, right): the two pictures, or frames of the two clips at the same moments."""
    left, right = (media.read(side.media_sha256, side.media_type) for side in (vote.left, vote.right))
    if not vote.left.media_type.startswith("video/"):
        return [("", left, right)]
    return [
        (f"{FRAME_MARK}{number}", *frames)
        for number, frames in enumerate(zip(_frames(left), _frames(right), strict=False))
    ]


def _frames(clip: bytes) -> list[bytes]:
    """CLIP_FRAMES frames of a clip, evenly spaced, as JPEG."""
    import av

    with av.open(io.BytesIO(clip), "r") as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    count = min(CLIP_FRAMES, len(frames))
    encoded = []
    for number in range(count):
        buffer = io.BytesIO()
        frames[(2 * number + 1) * len(frames) // (2 * count)].save(buffer, format="JPEG", quality=95)
        encoded.append(buffer.getvalue())
    return encoded


def rows_of(file: Path, columns: list[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file with these columns, or so many of them; InputError for any other."""
    table = opened(file)
    try:
        for batch in table.iter_batches(ROWS_PER_GROUP, columns=columns):
            yield from batch.to_pylist()
    except UNREADABLE as error:
        raise _unreadable(file, error) from None


def opened(file: Path) -> pq.ParquetFile:
    """The table in a file, if it has these columns; InputError for any other."""
    try:
        table = pq.ParquetFile(file)
    except UNREADABLE as error:
        raise _unreadable(file, error) from None
    missing = [name for name in PICK_A_PIC_COLUMNS if name not in (*table.schema_arrow.names, "__index_level_0__")]
    if missing:
        raise InputError(f"{file} has no column {missing[0]}; give a file with the columns of Pick-a-Pic.")
    return table


def _unreadable(file: Path, error: Exception) -> InputError:
    return InputError(f"{file} cannot be read as Parquet ({reason_of(error)}); give a file with Pick-a-Pic's columns.")


def _stable_int(text: str) -> int:
    """A positive int64 for an opaque id, the same on every export."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
