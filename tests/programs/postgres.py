"""A real PostgreSQL server for tests and benchmarks: a temporary cluster on loopback, made with Debian's binaries.

    with PostgresCluster() as cluster:
        url = cluster.new_database()

The server will not run as root, so root runs it as the user `postgres` (or `nobody`). NPO_TEST_POSTGRES_URL names a
server of yours instead: an account that may create databases.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

WHERE: Final = "/usr/lib/postgresql"  # Debian keeps every version in a folder of its own
QUICK: Final = {"fsync": "off", "full_page_writes": "off"}  # a test's server need not survive a power cut
StopMode = Literal["fast", "immediate"]


def find_binaries() -> Path | None:
    """The folder with initdb and pg_ctl, the newest version first; None where PostgreSQL is not installed."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    folders = sorted(Path(WHERE).glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return folders[-1].parent if folders else None


class PostgresCluster:
    """A server with its own data in a temporary folder, gone when the block ends; it can be stopped and started."""

    def __init__(self, settings: Mapping[str, str] = QUICK, folder: Path | None = None) -> None:
        """settings: of postgresql.conf; folder: below which the data lie, on a disk of your choice."""
        binaries = find_binaries()
        if binaries is None:
            raise RuntimeError("PostgreSQL is not installed; `apt-get install postgresql` brings it.")
        self._binaries = binaries
        self._user = _unprivileged_user()
        self.folder = Path(tempfile.mkdtemp(prefix="npo-postgres-", dir=folder))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.data = self.folder / "data"
        self.port = _free_port()
        self._run("initdb", "-D", str(self.data), "-U", "npo", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        lines = [f"{name} = '{value}'" for name, value in settings.items()]
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        self._guard = self._watch()
        self.start()

    @property
    def url(self) -> URL:
        """The server's own database, where others are created from."""
        return URL.create("postgresql", "npo", host="127.0.0.1", port=self.port, database="postgres")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", str(self.data), "-l", log, "-o", options)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops it: "fast" ends every connection first, "immediate" is as if the server had crashed."""
        self._run("pg_ctl", "stop", "-w", "-t", "60", "-D", str(self.data), "-m", mode)

    def close(self) -> None:
        """Stops it and deletes its data."""
        self._guard.communicate(timeout=120)
        shutil.rmtree(self.folder, ignore_errors=True)  # where only we may write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def new_database(self, template: str | None = None) -> str:
        """The URL of a new database; a copy of the one named `template`, which nobody may use meanwhile."""
        return new_database(self.url, template)

    @property
    def _identity(self) -> dict[str, Any]:
        """Whom `subprocess` runs a program as."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _watch(self) -> subprocess.Popen[bytes]:
        """A process that cleans up as soon as its input ends: at `close`, or when we die without getting there."""
        clean_up = 'cat; "$1" stop -D "$2/data" -m immediate; rm -rf "$2"'
        command = ["sh", "-c", clean_up, "guard", str(self._binaries / "pg_ctl"), str(self.folder)]
        silent = subprocess.DEVNULL
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=silent,
            stderr=silent,
            cwd="/",
            start_new_session=True,
            **self._identity,
        )

    def _run(self, program: str, *arguments: str) -> None:
        # No pipes: the server would inherit them and keep them open.
        with tempfile.TemporaryFile() as said:
            command = [str(self._binaries / program), *arguments]
            ended = subprocess.run(command, stdout=said, stderr=said, cwd=self.folder, check=False, **self._identity)
            said.seek(0)
            if ended.returncode != 0:
                raise RuntimeError(f"{program} failed: {said.read().decode(errors='replace')}")


def new_database(server: URL, template: str | None = None) -> str:
    """Creates a database on `server`, a copy of `template` where one is named; returns its URL, password and all."""
    name = f"npo_test_{uuid.uuid4().hex}"
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        statement = sql.SQL("{} TEMPLATE {} STRATEGY file_copy").format(statement, sql.Identifier(template))
    _administrate(server, statement)
    return server.set(database=name).render_as_string(hide_password=False)


def drop_database(url: str) -> None:
    """Deletes the database at `url`, whoever is still connected."""
    name = make_url(url).database or ""
    _administrate(
        make_url(url).set(database="postgres"), sql.SQL("DROP DATABASE {} (FORCE)").format(sql.Identifier(name))
    )


def _administrate(server: URL, statement: sql.Composed) -> None:
    plain = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom root runs the server as; None when we are somebody else already."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name: user for user in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
