"""Where pictures and clips are kept: a folder of this machine, or any place that fsspec reaches (s3://, hf://, ...).

Files are named after their content (ab/abcdef....png), so equal pictures are one file and nothing is ever changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from collection.errors import InputError
from collection.media.folder import SUFFIXES, MediaFiles, content_name

MEDIA_URL_VARIABLE: Final = "NPO_MEDIA_URL"
MEDIA_TYPES: Final = {suffix: media_type for media_type, suffix in SUFFIXES.items()}


class Media(Protocol):
    """What the Store needs of such a place. A name is what `content_name` makes of sha256 and media type."""

    def write(self, media: bytes, sha256: str, media_type: str) -> None:
        """Keeps `media`, safely before it returns, whole or not at all; InputError where the hash is another."""

    def has(self, sha256: str, media_type: str) -> bool:
        """Whether the file with this content is kept."""

    def read(self, sha256: str, media_type: str) -> bytes:
        """The bytes of a kept file; InputError where it is missing."""

    def path(self, sha256: str, media_type: str) -> Path:
        """A file of this machine with this content (where it is kept elsewhere: fetched, and kept here too)."""

    def remove(self, sha256: str, media_type: str) -> None:
        """Deletes a kept file; only the erasure of a participant asks for this."""

    def names(self) -> Iterator[str]:
        """All kept files, in order."""

    def content(self, name: str) -> bytes | None:
        """The bytes of a file by its name, None where it is missing."""

    def where(self, name: str) -> str:
        """How a message names a file."""


def open_media(data_dir: Path | str, url: str | None = None) -> Media:
    """The media at `url` (default: NPO_MEDIA_URL), or those in the folder DATA_DIR/media where there is none.

    Raises InputError for a URL that fsspec cannot open.
    """
    folder = MediaFiles(Path(data_dir) / "media")
    url = url or os.environ.get(MEDIA_URL_VARIABLE)
    if not url:
        return folder
    scheme, separator, rest = url.partition("://")
    if not separator:
        return MediaFiles(Path(url))
    if scheme in ("file", "local"):  # a folder of our own: written to a temporary name, flushed, renamed
        return MediaFiles(Path(rest))
    return RemoteMedia(url, folder)


class RemoteMedia:
    """Media behind an fsspec URL; what was once fetched or written lies in a folder too, which may be deleted."""

    def __init__(self, url: str, cache: MediaFiles) -> None:
        """url: with the bucket or data set, and a folder in it; credentials are found as fsspec finds them."""
        import fsspec  # here: it takes a moment that only those who need it should spend

        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise InputError(
                f"The media cannot be kept at {url!r} ({str(error).rstrip('.')}); give a folder, or a URL that fsspec "
                "knows, with the package it needs installed."
            ) from None
        self.url = url.rstrip("/")
        self.cache = cache

    def write(self, media: bytes, sha256: str, media_type: str) -> None:
        """See Media. Such places take over a file when it has arrived whole; its size is compared all the same."""
        self.cache.write(media, sha256, media_type)
        place = self._place(content_name(sha256, media_type))
        if self._size(place) == len(media):
            return
        self._try(self._files.makedirs, str(PurePosixPath(place).parent), exist_ok=True)
        self._try(self._files.pipe_file, place, media)
        if self._size(place) != len(media):
            raise InputError(f"The file {self.url}/{content_name(sha256, media_type)} did not arrive whole; try again.")

    def has(self, sha256: str, media_type: str) -> bool:
        """See Media."""
        return self._size(self._place(content_name(sha256, media_type))) is not None

    def read(self, sha256: str, media_type: str) -> bytes:
        """See Media."""
        return self.path(sha256, media_type).read_bytes()

    def path(self, sha256: str, media_type: str) -> Path:
        """See Media. InputError where the file is missing or damaged."""
        path, name = self.cache.path(sha256, media_type), content_name(sha256, media_type)
        if not path.exists():
            content = self.content(name)
            if content is None:
                raise InputError(f"The media file {self.where(name)} is missing; check {MEDIA_URL_VARIABLE}.")
            self.cache.write(content, sha256, media_type)
        return path

    def remove(self, sha256: str, media_type: str) -> None:
        """See Media."""
        self.cache.remove(sha256, media_type)
        place = self._place(content_name(sha256, media_type))
        if self._try(self._files.exists, place):
            self._try(self._files.rm_file, place)

    def names(self) -> Iterator[str]:
        """See Media."""
        self._files.invalidate_cache()
        found = self._try(self._files.find, self._root)
        return iter(sorted(str(PurePosixPath(path).relative_to(self._root)) for path in found))

    def content(self, name: str) -> bytes | None:
        """See Media."""
        try:
            return bytes(self._files.cat_file(self._place(name)))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._unreachable(error) from None

    def where(self, name: str) -> str:
        """See Media."""
        return f"{self.url}/{name}"

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _size(self, place: str) -> int | None:
        self._files.invalidate_cache()
        if not self._try(self._files.exists, place):
            return None
        return int(self._try(self._files.size, place))

    def _try(self, action: Any, *args: Any, **options: Any) -> Any:
        try:
            return action(*args, **options)
        except Exception as error:  # every file system has its own
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> InputError:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        return InputError(f"The media at {self.url} cannot be reached ({reason}); check the URL and the credentials.")


def copy_media(
    source: Media, target: Media, names: Iterable[str], undo: ExitStack, tell: Callable[[str], None]
) -> None:
    """Brings over the files called `names` that `target` has not; `undo` takes back those that were written.

    What is missing, or is not what its name says, is left out and told, a sentence each.
    """
    there = set(target.names())
    for name in names:
        if name in there:
            continue
        content, path = source.content(name), PurePosixPath(name)
        media_type = MEDIA_TYPES.get(path.suffix)
        if content is None:
            tell(f"The media file {source.where(name)} is missing.")
        elif media_type is None or hashlib.sha256(content).hexdigest() != path.stem:
            tell(f"The media file {source.where(name)} is damaged.")
        else:
            undo.callback(target.remove, path.stem, media_type)
            target.write(content, path.stem, media_type)
