"""Media in a folder, as files named after their content: ab/abcdef....png. See media.py for other places."""

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


def content_name(sha256: str, media_type: str) -> str:
    """ "ab/abcdef....png", the name of the file with this content; InputError for a type that cannot be kept."""
    if media_type not in SUFFIXES:
        raise InputError(f"The media type {media_type!r} cannot be kept; use one of {', '.join(SUFFIXES)}.")
    return f"{sha256[:2]}/{sha256}{SUFFIXES[media_type]}"


class MediaFiles:
    """A folder of media files; nothing is made there before the first `write`."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    def path(self, sha256: str, media_type: str) -> Path:
        """Where the file with this content lies, or would lie."""
        return self.folder / content_name(sha256, media_type)

    def write(self, media: bytes, sha256: str, media_type: str) -> None:
        """Keeps `media`, on the disk before it returns; a crash leaves the whole file or none under its name."""
        actual = hashlib.sha256(media).hexdigest()
        if actual != sha256:
            raise InputError(f"The media have the sha256 {actual}, not {sha256} as stated; hash the bytes given.")
        path = self.path(sha256, media_type)
        if path.is_file():
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, media)
        except OSError as error:
            raise InputError(
                f"The picture cannot be written to {path.parent} ({error.strerror}); "
                "make the data folder writable or give another one."
            ) from None

    def has(self, sha256: str, media_type: str) -> bool:
        """Whether the file with this content is kept."""
        return self.path(sha256, media_type).exists()

    def read(self, sha256: str, media_type: str) -> bytes:
        """The bytes of a kept file."""
        path = self.path(sha256, media_type)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"The media file {path} is missing; give the data folder that belongs to this database."
            ) from None
        except OSError as error:
            raise InputError(f"The media file {path} cannot be read ({error.strerror}); put it back.") from None

    def remove(self, sha256: str, media_type: str) -> None:
        """Deletes a kept file; only the erasure of a participant asks for this."""
        self.path(sha256, media_type).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        """All kept files, in order."""
        return (path.relative_to(self.folder).as_posix() for path in self)

    def content(self, name: str) -> bytes | None:
        """The bytes of a file by its name, None where it is missing."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def where(self, name: str) -> str:
        """How a message names a file."""
        return str(self.folder / name)

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
