"""Media as files named after their content: DATA_DIR/media/ab/abcdef....png. Equal pictures are one file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from collection.errors import InputError

SUFFIXES: Final = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "text/plain": ".txt",
}


class MediaFiles:
    """The folder of media files below `data_dir`; nothing is made there before the first `write`."""

    def __init__(self, data_dir: Path | str) -> None:
        self.folder = Path(data_dir) / "media"

    def path(self, sha256: str, media_type: str) -> Path:
        """Where the file with this content lies, or would lie."""
        if media_type not in SUFFIXES:
            raise InputError(f"The media type {media_type!r} cannot be kept; use one of {', '.join(SUFFIXES)}.")
        return self.folder / sha256[:2] / f"{sha256}{SUFFIXES[media_type]}"

    def write(self, media: bytes, sha256: str, media_type: str) -> Path:
        """Keeps `media`, on the disk before it returns; a crash leaves the whole file or none under its name."""
        actual = hashlib.sha256(media).hexdigest()
        if actual != sha256:
            raise InputError(f"The media have the sha256 {actual}, not {sha256} as stated; hash the bytes given.")
        path = self.path(sha256, media_type)
        if path.exists():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, media)
        except OSError as error:
            raise InputError(
                f"The picture cannot be written to {path.parent} ({error.strerror}); "
                "make the data folder writable or give another one."
            ) from None
        return path

    def read(self, sha256: str, media_type: str) -> bytes:
        """The bytes of a kept file."""
        path = self.path(sha256, media_type)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"The media file {path} is missing; give the data folder that belongs to this database."
            ) from None

    def remove(self, sha256: str, media_type: str) -> None:
        """Deletes a kept file; only the erasure of a participant asks for this."""
        self.path(sha256, media_type).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Path]:
        """All kept files, in order."""
        return iter(sorted(path for path in self.folder.glob("??/*") if not path.name.startswith(".")))


def write_durably(path: Path, content: bytes) -> None:
    """Writes to a temporary name beside `path`, flushes to the disk, then renames."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut (Windows neither needs nor allows it)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
