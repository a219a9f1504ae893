"""An open database: what every part of the Store stands on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy.orm import Session

from collection.engine import check_url, clear_errors, for_writing, open_engine
from collection.media_files import MediaFiles
from collection.migrate import upgrade

DEFAULT_URL: Final = "sqlite:///data/npo.db"
DEFAULT_DATA_DIR: Final = "data"


class Database:
    """An open database with the newest schema, and the folder of its media files."""

    def __init__(self, url: str = DEFAULT_URL, data_dir: Path | str = DEFAULT_DATA_DIR, *, create: bool = True) -> None:
        """Opens the database, creates it unless told not to, and upgrades its schema.

        url: sqlite:///FILE or postgresql://...; data_dir: media go to DATA_DIR/media/ab/abcdef....png.
        Raises InputError for an unknown scheme, a place that cannot be written, a file that is no database.
        """
        self.url = check_url(url)
        self.media = MediaFiles(data_dir)
        self._engine = open_engine(self.url, create=create)
        with clear_errors(self.url):
            upgrade(self._engine)

    def close(self) -> None:
        """Closes the connections; only a caller that opens many needs this."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that sees one moment of the database."""
        with clear_errors(self.url), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is on the disk when the block ends, and undone when it raises."""
        with clear_errors(self.url), Session(for_writing(self._engine)) as session, session.begin():
            yield session
