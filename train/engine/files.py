"""Files that appear complete or not at all, with one sentence for a disk that is full."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npo_core.errors import InputError


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """An open file that becomes `file` when the block ends well; a kill at any moment leaves the old one or the new.

    Raises InputError when the disk is full or the folder cannot be written; `file` is then as it was.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with in_one_sentence(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as opened:
                yield opened
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(partial, file)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def in_one_sentence(file: Path) -> Iterator[None]:
    """Within it an OSError becomes an InputError: `file` cannot be written, and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        cure = "make room" if full else "make its folder writable"
        raise InputError(
            f"{file} cannot be written ({error.strerror or error}); {cure} and run again. "
            "What was saved before is untouched."
        ) from None


def make_room(file: Path, size: int) -> None:
    """Lets `file` grow with zeros to `size` bytes or more, all of them on the disk; InputError, and as it was, where
    they do not fit. (Behind a memory map of a file with holes, a disk that fills up ends the process with SIGBUS.)"""
    with in_one_sentence(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as opened:
            before = opened.tell()
            try:
                os.posix_fallocate(opened.fileno(), 0, max(before, size))
            except OSError:
                opened.truncate(before)
                if before == 0:
                    file.unlink()
                raise


def write_array(file: Path, *arrays: np.ndarray) -> None:
    """One array as .npy, several as .npz, by the file's suffix."""
    with replacing(file) as opened:
        if file.suffix == ".npz":
            np.savez(opened, *arrays)
        else:
            np.save(opened, arrays[0])


def write_text(file: Path, text: str) -> None:
    """UTF-8."""
    with replacing(file) as opened:
        opened.write(text.encode())


def write_json(file: Path, content: Any) -> None:
    """Readable JSON."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
