"""Preference pairs from a data set with Pick-a-Pic's columns (a Parquet or Arrow file, a folder of them in splits, a
Hub id), or from a folder of pictures with a list of pairs.

Pictures become latents once: they are kept in a cache under the hash of the picture, its size and the VAE, so that a
second run (or the reversed one) encodes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image, ImageOps

from collection.account import Account, said
from collection.errors import InputError as CollectionInputError
from collection.formats.tables import NO_PICTURE, NO_PICTURE_FILE, picture_in, table_files, table_rows
from collection.texts import csv_rows
from npo_core.errors import InputError
from npo_core.media.files import open_image
from train.engine.files import write_array
from train.network.policy import hash_weights
from train.pairs.pairs import PairSet, PreferencePair

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
PICTURES = ("jpg_0", "jpg_1")
LIST_NAME, LIST_COLUMNS = "pairs.csv", ("caption", "preferred", "rejected")  # a folder of pairs
ENCODE_PAIRS = 4  # pairs that the VAE encodes at once
READING = "upright, transparent as white"  # how pictures are read: another way would give other latents


class LatentCache:
    """Pictures to latents through the pipeline's VAE, each picture once. Folder layout: ab/abcdef....npy."""

    def __init__(self, pipeline: StableDiffusionPipeline, width_px: int, height_px: int, folder: Path) -> None:
        self._vae, self._processor = pipeline.vae, pipeline.image_processor
        self._size_px, self._folder = (width_px, height_px), folder
        self._salt = f"{width_px}x{height_px} {READING} {hash_weights(self._vae)}".encode()

    def latents(self, pictures: Sequence[bytes]) -> list[np.ndarray | None]:
        """float16 (C, H, W) at UNet scale for each encoded picture; None for one that cannot be read."""
        files = [self._file(picture) for picture in pictures]
        images = {
            file: self._read(picture) for file, picture in zip(files, pictures, strict=True) if not file.is_file()
        }
        readable = {file: image for file, image in images.items() if image is not None}
        if readable:
            for file, latents in zip(readable, self._encode(list(readable.values())), strict=True):
                write_array(file, latents)
        return [np.load(file) if images.get(file, True) is not None else None for file in files]

    def _file(self, picture: bytes) -> Path:
        name = hashlib.sha256(self._salt + picture).hexdigest()
        return self._folder / name[:2] / f"{name}.npy"

    def _read(self, picture: bytes) -> Image.Image | None:
        """The picture cut to the family's shape around its middle, and scaled to its size."""
        try:
            return ImageOps.fit(open_image(picture), self._size_px, Image.Resampling.LANCZOS)
        except InputError:
            return None

    @torch.no_grad()
    def _encode(self, images: list[Image.Image]) -> np.ndarray:
        """(B, C, H, W) float16: the mean of the posterior, so that the same picture gives the same latents."""
        pixels = self._processor.preprocess(images).to(self._vae.device, self._vae.dtype)  # (B, 3, H, W) in [-1, 1]
        latents = self._vae.encode(pixels).latent_dist.mode() * self._vae.config.scaling_factor
        return latents.to("cpu", torch.float16).numpy()


def from_dataset(
    source: str,
    cache: LatentCache,
    *,
    split: str = "train",
    max_pairs: int | None = None,
) -> PairSet:
    """The decided rows of `source`; ties are left out (label 0.5, or has_label False), and rows that cannot be used.

    `max_pairs` stops after so many usable rows. Raises InputError when `source` cannot be read, lacks COLUMNS or has no
    such split.
    """
    try:
        return pairs_of_rows(_open_rows(source, split), source, cache, max_pairs)
    except CollectionInputError as error:
        raise InputError(str(error)) from None


def pairs_of_rows(
    rows: Iterable[Mapping[str, Any]], name: str, cache: LatentCache, max_pairs: int | None = None
) -> PairSet:
    """The pairs in rows with COLUMNS; each one's source is NAME#ROW, with rows from 0. Accounts name rows from 1."""
    pairs: list[PreferencePair] = []
    account = Account()
    decided = _decided(rows, name, account)
    while max_pairs is None or len(pairs) < max_pairs:
        batch = list(islice(decided, ENCODE_PAIRS if max_pairs is None else min(ENCODE_PAIRS, max_pairs - len(pairs))))
        if not batch:
            break
        latents = cache.latents([picture for _, _, *both in batch for picture in both])
        for (caption, number, _, _), preferred, rejected in zip(batch, latents[0::2], latents[1::2], strict=True):
            if preferred is None or rejected is None:
                account.leave_out(NO_PICTURE, number + 1)
            elif not (np.isfinite(preferred).all() and np.isfinite(rejected).all()):
                account.leave_out("latents that are not finite", number + 1)
            else:
                account.keep()
                pairs.append(PreferencePair(caption, preferred, rejected, f"{name}#{number}"))
    return PairSet(pairs, dict(account.left_out), account=account)


def _decided(rows: Iterable[Mapping[str, Any]], name: str, account: Account) -> Iterator[tuple[str, int, bytes, bytes]]:
    """(caption, row from 0, preferred picture, rejected picture) of the rows that order their pair."""
    for number, row in enumerate(rows):
        missing = [column for column in COLUMNS if column not in row]
        if missing:
            raise InputError(f"{name} has no column {missing[0]}; it needs Pick-a-Pic's {', '.join(COLUMNS)}.")
        order = _order(row)
        first, second = row["jpg_0"], row["jpg_1"]
        caption = said(row["caption"])
        if isinstance(order, str):
            account.leave_out(order, number + 1)
        elif caption is None or (isinstance(caption, str) and not caption.strip()):
            account.leave_out("no caption", number + 1)
        elif not isinstance(caption, str):
            account.leave_out("a caption that is no text", number + 1)
        elif not isinstance(first, bytes) or not isinstance(second, bytes):
            lost = second if isinstance(first, bytes) else first
            account.leave_out(lost if isinstance(lost, str) else NO_PICTURE, number + 1)
        elif first == second:
            account.leave_out("same picture twice", number + 1)
        else:
            yield (caption, number, *((first, second) if order > 0 else (second, first)))


def _order(row: Mapping[str, Any]) -> float | str:
    """Above 0 where picture 0 is preferred, below where picture 1 is; or why the row orders nothing."""
    labels = [said(row["label_0"]), said(row["label_1"])]
    if None in labels:
        return "no label"
    try:
        first, second = (float(label) for label in labels)
    except (TypeError, ValueError, OverflowError):
        return "a label that is no number"
    if not (math.isfinite(first) and math.isfinite(second)):
        return "a label that is no number"
    return "tie" if first == second or said(row.get("has_label")) is False else first - second


def _open_rows(source: str, split: str) -> Iterator[Mapping[str, Any]]:
    """Rows one by one, their pictures as bytes or as the reason why there are none."""
    path = Path(source).expanduser()
    if (path / LIST_NAME).is_file():
        yield from _folder_rows(path / LIST_NAME)
    elif path.exists():
        for file in table_files(path, split):
            for row in table_rows(file, (*COLUMNS, "has_label")):
                yield _with_pictures(row, file.parent)
    else:
        yield from (_with_pictures(row, Path.cwd()) for row in _hub_rows(source, split))


def _with_pictures(row: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {name: picture_in(value, folder) if name in PICTURES else value for name, value in row.items()}


def _folder_rows(listed: Path) -> Iterator[Mapping[str, Any]]:
    """Rows with COLUMNS from a CSV file whose columns are LIST_COLUMNS, the pictures being files beside it."""
    for number, row in csv_rows(listed):
        missing = [column for column in LIST_COLUMNS if not row.get(column)]
        if missing:
            raise InputError(
                f"Line {number} of {listed} has no {missing[0]}; each row needs {', '.join(LIST_COLUMNS)}."
            )
        pictures = [picture_in(row[column], listed.parent) for column in LIST_COLUMNS[1:]]
        for column, picture in zip(LIST_COLUMNS[1:], pictures, strict=True):
            if picture == NO_PICTURE_FILE:
                raise InputError(
                    f"Line {number} of {listed} names {row[column]}, which cannot be read; put it there or take its "
                    "row out."
                )
        yield {"caption": row["caption"], **dict(zip(COLUMNS[1:], (*pictures, 1.0, 0.0), strict=True))}


def _hub_rows(source: str, split: str) -> Iterator[Mapping[str, Any]]:
    """Nothing is downloaded that is not read, and no picture decoded."""
    try:
        from datasets import Image, load_dataset
    except ImportError:
        raise InputError("Reading a data set needs the package `datasets`; install requirements.txt.") from None
    try:
        rows = load_dataset(source, split=split, streaming=True)
        for name, feature in (rows.features or {}).items():
            if isinstance(feature, Image):
                rows = rows.cast_column(name, Image(decode=False))
        yield from rows
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError | CollectionInputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The data set {source} cannot be opened ({reason}); give a Parquet or Arrow file, a folder of them "
            f"or with {LIST_NAME}, or a Hub id."
        ) from None
