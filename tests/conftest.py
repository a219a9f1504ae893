"""A PostgreSQL server for the tests that want one: started at the first of them, a fresh database for each.

And what a test needs beside Python; see tests/programs/needs.py.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest
from sqlalchemy import URL, make_url

from collection.store import Store
from tests.programs.needs import need, not_tested
from tests.programs.postgres import PostgresCluster, drop_database, new_database


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures, which may take long to make what cannot be used then."""
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            need(name)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """The last line says what was not tested."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:  # a worker of xdist has none
        told = not_tested(str(report.longrepr) for report in reporter.stats.get("skipped", ()))
        if told:
            reporter.write_line(told, yellow=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """The server of NPO_TEST_POSTGRES_URL, or else a temporary one."""
    given = os.environ.get("NPO_TEST_POSTGRES_URL")
    if given:
        yield make_url(given)
        return
    need("postgresql")
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
