"""Decided votes as the folders that other trainers read pairs from, in their own names, as of August 2026.

simpletuner  preferred/ and rejected/ with equal file names, a .txt beside each preferred one, and
             multidatabackend.json: rejected/ is its conditioning data of the type reference_strict (Flow-DPO)
onetrainer   chosen/ and rejected/ with equal file names, a .txt beside each chosen one, and concepts.json: one concept
             whose dpo_chosen_pattern and dpo_rejected_pattern find both files of a pair
sd-scripts   w/ and l/ with equal file names, a .caption beside each, and dataset.toml with preference = true
verl-omni    pairs.parquet, a row a pair with the paths of the pictures beside it, as its offline DPO reads them; the
             tensors of the model to be trained (latents and prompt embeddings) are that model's to add

Ties, "both bad", and votes that do not count or were given when the names were known order no pair and are left out.
The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from collection.errors import InputError
from collection.media.folder import SUFFIXES
from collection.media.stores import Media
from collection.types import ExportedVote, Generation
from collection.votes.which_count import counts


@dataclass(frozen=True)
class Written:
    """A pair whose two files are called `name` in their folders."""

    name: str
    vote: ExportedVote

    @property
    def sides(self) -> tuple[Generation, Generation]:
        """Preferred, rejected."""
        return preferred_first(self.vote)


def write_simpletuner(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """See above. Prompts keep their line breaks; the settings say that those do not part captions."""
    with _folder(path) as part:
        pairs = []
        for pair in _files(votes, media, part, "preferred", "rejected"):
            _caption(part / "preferred" / pair.name, ".txt", pair.vote.left.prompt)
            pairs.append(pair)
        kind = "video" if pairs and pairs[0].vote.left.modality == "video" else "image"
        settings = {"type": "local", "caption_strategy": "textfile", "disable_multiline_split": True}
        preferred = {
            "id": "preferred",
            "dataset_type": kind,
            "instance_data_dir": str(path.resolve() / "preferred"),
            "cache_dir_vae": str(path.resolve() / "cache" / "preferred"),
            "conditioning_data": ["rejected"],
            **settings,
        }
        rejected = {
            "id": "rejected",
            "dataset_type": "conditioning",
            "conditioning_type": "reference_strict",
            "source_dataset_id": "preferred",
            "instance_data_dir": str(path.resolve() / "rejected"),
            "cache_dir_vae": str(path.resolve() / "cache" / "rejected"),
            **settings,
        }
        texts = {
            "id": "texts",
            "dataset_type": "text_embeds",
            "default": True,
            "type": "local",
            "cache_dir": str(path.resolve() / "cache" / "texts"),
        }
        _json(part / "multidatabackend.json", [preferred, rejected, texts])
    return len(pairs)


def write_onetrainer(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """See above. It takes each line of a caption file for a caption, so a prompt's line breaks become spaces."""
    with _folder(path) as part:
        written = 0
        for pair in _files(votes, media, part, "chosen", "rejected"):
            _caption(part / "chosen" / pair.name, ".txt", _in_one_line(pair.vote.left.prompt))
            written += 1
        concept = {
            "name": "votes",
            "path": str(path.resolve()),
            "type": "STANDARD",
            "enabled": True,
            "include_subdirectories": True,
            "dpo_chosen_pattern": "chosen/{}",
            "dpo_rejected_pattern": "rejected/{}",
            "text": {"prompt_source": "sample"},
        }
        _json(part / "concepts.json", [concept])
    return written


def write_sd_scripts(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """See above. It reads the first line of a caption file, so a prompt's line breaks become spaces."""
    with _folder(path) as part:
        written = 0
        for pair in _files(votes, media, part, "w", "l"):
            for folder in ("w", "l"):
                _caption(part / folder / pair.name, ".caption", _in_one_line(pair.vote.left.prompt))
            written += 1
        place = json.dumps(str(path.resolve()), ensure_ascii=False)  # a JSON text is a TOML text too
        (part / "dataset.toml").write_text(
            f'[general]\ncaption_extension = ".caption"\n\n[[datasets]]\n\n[[datasets.subsets]]\nimage_dir = {place}\n'
            "preference = true\nnum_repeats = 1\n",
            encoding="utf-8",
        )
    return written


def write_verl_omni(votes: Iterable[ExportedVote], media: Media, path: Path) -> int:
    """See above."""
    with _folder(path) as part:
        rows = [_verl_row(pair) for pair in _files(votes, media, part, "win", "lose")]
        pq.write_table(pa.Table.from_pylist(rows, VERL_SCHEMA), part / "pairs.parquet")
    return len(rows)


MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
VERL_SCHEMA: Final = pa.schema(
    [
        *(("uid", pa.string()), ("data_source", pa.string()), ("prompt", MESSAGES), ("negative_prompt", MESSAGES)),
        *(("img_win", pa.string()), ("img_lose", pa.string())),
        *(("win_score", pa.float64()), ("lose_score", pa.float64())),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [
                    *(("raw_prompt", pa.string()), ("raw_negative_prompt", pa.string())),
                    *(("win_seed", pa.int64()), ("lose_seed", pa.int64())),
                ]
            ),
        ),
    ]
)


def _verl_row(pair: Written) -> dict[str, Any]:
    preferred, rejected = pair.sides
    said = {"raw_prompt": preferred.prompt, "raw_negative_prompt": preferred.negative_prompt}
    return {
        "uid": pair.vote.ballot.id,
        "data_source": "offline_dpo",
        "prompt": [{"role": "user", "content": preferred.prompt}],
        "negative_prompt": [{"role": "user", "content": preferred.negative_prompt}],
        "img_win": f"win/{pair.name}",
        "img_lose": f"lose/{pair.name}",
        "win_score": 1.0,
        "lose_score": 0.0,
        "reward_model": {"style": "model", "ground_truth": preferred.prompt},
        "extra_info": {**said, "win_seed": preferred.seed, "lose_seed": rejected.seed},
    }


def preferred_first(vote: ExportedVote) -> tuple[Generation, Generation]:
    """(preferred, rejected) of a decided vote."""
    return (vote.left, vote.right) if vote.vote.choice == "left" else (vote.right, vote.left)


def orders_a_pair(vote: ExportedVote) -> bool:
    """Whether it counts, was given blind, and prefers one of two pictures or clips."""
    shown = vote.left.modality != "text"
    return counts(vote) and vote.ballot.blind and shown and vote.vote.choice in ("left", "right")


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` once the block has ended without an error."""
    part = path.with_name(f".{path.name}.part")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(
            f"{path} holds something already, which this export would be mixed up with; give a new folder."
        )
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        with suppress(FileNotFoundError):
            path.rmdir()
        part.rename(path)
    except OSError as error:
        raise InputError(f"The folder {path} cannot be written ({error.strerror}); give another one.") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _files(
    votes: Iterable[ExportedVote], media: Media, folder: Path, preferred: str, rejected: str
) -> Iterator[Written]:
    """Writes both files of every pair as FOLDER/PREFERRED/NAME and FOLDER/REJECTED/NAME."""
    for name in (preferred, rejected):
        (folder / name).mkdir()
    for number, vote in enumerate(filter(orders_a_pair, votes)):
        sides = preferred_first(vote)
        contents = [media.read(side.media_sha256, side.media_type) for side in sides]
        types = {side.media_type for side in sides}
        suffix = SUFFIXES[types.pop()] if len(types) == 1 else ".png"
        if types:  # pairs are found by their names, so both files are of one kind
            contents = [_as_png(content) for content in contents]
        pair = Written(f"{number:06d}{suffix}", vote)
        for name, content in zip((preferred, rejected), contents, strict=True):
            (folder / name / pair.name).write_bytes(content)
        yield pair


def _as_png(content: bytes) -> bytes:
    import io

    from PIL import Image, ImageOps

    buffer = io.BytesIO()
    try:
        ImageOps.exif_transpose(Image.open(io.BytesIO(content))).save(buffer, "PNG")
    except Exception as error:  # on broken bytes decoders raise whatever they come across
        raise InputError(f"A picture of these votes cannot be read ({error}); `verify` names it.") from None
    return buffer.getvalue()


def _caption(picture: Path, suffix: str, text: str) -> None:
    picture.with_suffix(suffix).write_bytes(text.encode())


def _in_one_line(prompt: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", prompt)


def _json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
