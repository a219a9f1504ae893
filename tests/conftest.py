"""A PostgreSQL server for the tests that want one: started at the first of them, a fresh database for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, make_url

from collection.store import Store
from tests.postgres import PostgresCluster, drop_database, find_binaries, new_database


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """The server of NPO_TEST_POSTGRES_URL, or else a temporary one."""
    given = os.environ.get("NPO_TEST_POSTGRES_URL")
    if given:
        yield make_url(given)
    elif find_binaries() is None:
        pytest.skip("PostgreSQL is not installed: `apt-get install postgresql`, or set NPO_TEST_POSTGRES_URL")
    else:
        with PostgresCluster() as cluster:
            yield cluster.url


@pytest.fixture(scope="session")
def _migrated(postgres_server: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = new_database(postgres_server)
    Store(url, tmp_path_factory.mktemp("migrated")).close()
    yield str(make_url(url).database)
    drop_database(url)


@pytest.fixture
def postgres_url(postgres_server: URL, _migrated: str) -> Iterator[str]:
    """An empty database with the newest schema; copying one takes a tenth of the time of migrating one."""
    url = new_database(postgres_server, template=_migrated)
    yield url
    drop_database(url)
