"""Preference pairs from a data set with Pick-a-Pic's columns (a Parquet file, a folder of them, a Hub id), or from a
folder of pictures with a list of pairs.

Pictures become latents once: they are kept in a cache under the hash of the picture, its size and the VAE, so that a
second run (or the reversed one) encodes nothing.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image, ImageOps

from npo_core.errors import InputError
from npo_core.media.files import open_image
from train.engine.files import write_array
from train.pairs.pairs import PairSet, PreferencePair, usable

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1")
LIST_NAME, LIST_COLUMNS = "pairs.csv", ("caption", "preferred", "rejected")  # a folder of pairs
ENCODE_PAIRS = 4  # pairs that the VAE encodes at once


class LatentCache:
    """Pictures to latents through the pipeline's VAE, each picture once. Folder layout: ab/abcdef....npy."""

    def __init__(self, pipeline: StableDiffusionPipeline, width_px: int, height_px: int, folder: Path) -> None:
        self._vae, self._processor = pipeline.vae, pipeline.image_processor
        self._size_px, self._folder = (width_px, height_px), folder
        digest = hashlib.sha256(f"{width_px}x{height_px}".encode())
        for name, tensor in sorted(self._vae.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._salt = digest.digest()

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

    `max_pairs` stops after so many usable rows. Raises InputError when `source` cannot be read or lacks COLUMNS.
    """
    return pairs_of_rows(_open_rows(source, split), source, cache, max_pairs)


def pairs_of_rows(
    rows: Iterable[Mapping[str, Any]], name: str, cache: LatentCache, max_pairs: int | None = None
) -> PairSet:
    """The pairs in rows with COLUMNS; each one's source is NAME#ROW."""
    pairs: list[PreferencePair] = []
    dropped: Counter[str] = Counter()
    decided = _decided(rows, name, dropped)
    while batch := list(islice(decided, ENCODE_PAIRS)):
        latents = cache.latents([picture for _, _, *both in batch for picture in both])
        for (caption, source, _, _), preferred, rejected in zip(batch, latents[0::2], latents[1::2], strict=True):
            if preferred is None or rejected is None:
                dropped["unreadable picture"] += 1
            elif max_pairs is None or len(pairs) < max_pairs:
                pairs.append(PreferencePair(caption, preferred, rejected, source))
        if max_pairs is not None and len(pairs) >= max_pairs:
            break
    return usable(PairSet(pairs, dict(dropped)))


def _decided(
    rows: Iterable[Mapping[str, Any]], name: str, dropped: Counter[str]
) -> Iterable[tuple[str, str, bytes, bytes]]:
    """(caption, source, preferred picture, rejected picture) of the rows that order their pair."""
    for number, row in enumerate(rows):
        missing = [column for column in COLUMNS if column not in row]
        if missing:
            raise InputError(f"{name} has no column {missing[0]}; it needs Pick-a-Pic's {', '.join(COLUMNS)}.")
        first, second = _encoded(row["jpg_0"]), _encoded(row["jpg_1"])
        if row["label_0"] == row["label_1"] or not row.get("has_label", True):
            dropped["tie"] += 1
        elif first is None or second is None:
            dropped["unreadable picture"] += 1
        elif first == second:
            dropped["same picture twice"] += 1
        else:
            preferred, rejected = (first, second) if row["label_0"] > row["label_1"] else (second, first)
            yield str(row["caption"]), f"{name}#{number}", preferred, rejected


def _folder_rows(listed: Path) -> Iterator[Mapping[str, Any]]:
    """Rows with COLUMNS from a CSV file whose columns are LIST_COLUMNS, the pictures being files beside it."""
    try:
        with listed.open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                missing = [column for column in LIST_COLUMNS if not row.get(column)]
                if missing:
                    raise InputError(
                        f"{listed} has no {missing[0]} in row {row}; each row needs {', '.join(LIST_COLUMNS)}."
                    )
                pictures = [_read_file(listed, row[column]) for column in LIST_COLUMNS[1:]]
                yield {"caption": row["caption"], **dict(zip(COLUMNS[1:], (*pictures, 1.0, 0.0), strict=True))}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{listed} cannot be read ({error}); give a UTF-8 CSV file.") from None


def _read_file(listed: Path, name: str) -> bytes:
    try:
        return (listed.parent / name).read_bytes()
    except OSError as error:
        raise InputError(
            f"{listed} names {name}, which cannot be read ({error.strerror}); put it there or take its row out."
        ) from None


def _encoded(value: Any) -> bytes | None:
    """The bytes of a picture, stored plainly or as `datasets` stores its Image feature."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def _open_rows(source: str, split: str) -> Iterable[Mapping[str, Any]]:
    """Rows one by one: nothing is downloaded or converted that is not read."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError("Reading a data set needs the package `datasets`; install requirements.txt.") from None
    path = Path(source)
    if (path / LIST_NAME).is_file():
        return _folder_rows(path / LIST_NAME)
    files = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [source]
    files = [file for file in files if Path(file).name.startswith(split)] or files  # a folder of splits
    try:
        if path.exists():
            if not files or not files[0].endswith(".parquet"):
                raise InputError(f"{source} holds no .parquet file and no {LIST_NAME}; give one of them or a Hub id.")
            return load_dataset("parquet", data_files=files, split="train", streaming=True)
        return load_dataset(source, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The data set {source} cannot be opened ({reason}); give a Parquet file or a Hub id."
        ) from None
