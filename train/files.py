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
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(partial, file)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "make room" if full else "make its folder writable"
        raise InputError(
            f"{file} cannot be written ({error.strerror or error}); {cure} and run again. "
            "What was saved before is untouched."
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


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
