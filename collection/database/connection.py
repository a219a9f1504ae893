"""An open database: what every part of the Store stands on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy.orm import Session

from collection.database.engine import BUSY_TIMEOUT_S, check_url, for_reading, for_writing, open_engine
from collection.database.faults import clear_errors, try_for_a_while
from collection.database.migrate import upgrade
from collection.database.people import OURS, keys_in, make_key
from collection.errors import TryAgainError
from collection.media.stores import open_media

DEFAULT_URL: Final = "sqlite:///data/npo.db"
DEFAULT_DATA_DIR: Final = "data"


class Database:
    """An open database with the newest schema, and the folder of its media files."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        data_dir: Path | str = DEFAULT_DATA_DIR,
        *,
        create: bool = True,
        media_url: str | None = None,
    ) -> None:
        """Opens the database, creates it unless told not to, and upgrades its schema.

        url: sqlite:///FILE or postgresql://...; data_dir: media go to DATA_DIR/media/ab/abcdef....png unless media_url
        (default: the environment's NPO_MEDIA_URL) names another place.
        Raises InputError for an unknown scheme, a place that cannot be written, a file that is no database.
        """
        self.url = check_url(url)
        self.data_dir = Path(data_dir)
        self.media = open_media(data_dir, media_url)
        self._engine = open_engine(self.url, create=create)
        self._turn = threading.Lock() if self.url.get_backend_name() == "sqlite" else None
        with clear_errors(self.url, opening=True):
            upgrade(self._engine)
            with Session(for_reading(self._engine)) as session:
                keyed = OURS in keys_in(session)
            if not keyed:
                with Session(for_writing(self._engine)) as session, session.begin():
                    make_key(session)

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
        with clear_errors(self.url), Session(for_reading(self._engine)) as session:
            self._begin(session)
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that is on the disk when the block ends, and undone when it raises."""
        with self._turn_to_write(), clear_errors(self.url), Session(for_writing(self._engine)) as session:
            self._begin(session)
            yield session
            session.flush()
            with clear_errors(self.url, committing=True):
                session.commit()

    def _begin(self, session: Session) -> None:
        """Begins the transaction; waits a while for a database that is away, since nothing has been said yet."""

        def begin() -> None:
            with clear_errors(self.url):
                session.connection()

        try_for_a_while(begin)

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        """Threads of one process take turns on a SQLite file, for it can be written by one at a time only, and who
        waits for its lock looks again every now and then instead of being woken."""
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
            raise TryAgainError("The database has more to do than it can; try again in a moment.", undone=True)
        try:
            yield
        finally:
            self._turn.release()
