"""Makes the ledgers that are measured: each is filled once, as a template, and copied for each round.

Copied, because a load changes a ledger: after some rounds on the same one all its tasks would be settled, and
what is measured would be another thing in each round. To copy takes a second, to fill takes many.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from bench.bulk import is_sqlite, sqlite_path
from bench.contender import Contender, Kind
from bench.filling import Contents, fill, under_load
from bench.postgresql import PostgreSQL, postgresql_server
from bench.textbook import fill_textbook

Fill = Callable[[str], None]


class Ledgers:
    """Ledgers in one directory and on one PostgreSQL server, which is started when it is needed."""

    def __init__(self, directory: Path, preload: dict[str, str] | None = None) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._preload = preload  # of the PostgreSQL server
        self._templates: dict[str, str] = {}
        self._names: dict[str, str] = {}  # by URL, of what there is
        self._made = 0
        self._stack = ExitStack()

    def __enter__(self) -> "Ledgers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def postgresql(self) -> PostgreSQL:
        """The server, started when it is first asked for."""
        return self._stack.enter_context(postgresql_server(self._directory / "postgresql", self._preload))

    def of(self, contender: Contender, tasks: int) -> str:
        """Return the URL of a ledger of `tasks` tasks to put load on; who keeps none gets one of nothing."""
        if contender.ledger is None:
            return "sqlite:////nowhere" if contender.database == "sqlite" else "postgresql://host/nowhere"
        if contender.ledger == "backstop":
            return self.filled(contender.database, Contents(tasks, under_load))
        return self._copy("sqlite", contender.name, lambda url: fill_textbook(url, contender.app, tasks))

    def filled(self, kind: Kind, contents: Contents) -> str:
        """Return the URL of a copy of Backstop's ledger with these contents, made when first asked for."""
        name = f"{kind}:{contents.kind_of.__name__}:{contents.tasks}"
        return self._copy(kind, name, lambda url: fill(url, contents))

    def make(self, kind: Kind, fill_it: Fill) -> str:
        """Return the URL of a new ledger, once it is filled and as a database is that has come to rest."""
        url = self._empty(kind)
        fill_it(url)
        if kind == "postgresql":
            self.postgresql.vacuum(self._names[url])
        else:
            connection = sqlite3.connect(sqlite_path(url))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
        return url

    def drop(self, url: str) -> None:
        """Delete a ledger that nobody uses any more; what has never been one is left alone."""
        name = self._names.pop(url, None)
        if name and is_sqlite(url):
            for path in self._directory.glob(f"{name}.db*"):
                path.unlink()
        elif name:
            self.postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _empty(self, kind: Kind, template: str | None = None) -> str:
        self._made += 1
        name = f"ledger_{self._made}"
        if kind == "sqlite":
            url = f"sqlite:///{self._directory / name}.db"
        else:
            copied = f" TEMPLATE {self._names[template]} STRATEGY FILE_COPY" if template else ""
            self.postgresql.execute(f"CREATE DATABASE {name}{copied}", "CHECKPOINT")
            url = self.postgresql.database_url(name)
        self._names[url] = name
        return url

    def _copy(self, kind: Kind, name: str, fill_it: Fill) -> str:
        if name not in self._templates:
            self._templates[name] = self.make(kind, fill_it)
        template = self._templates[name]
        url = self._empty(kind, template)
        if kind == "sqlite":
            shutil.copyfile(sqlite_path(template), sqlite_path(url))
        os.sync()  # now, and not beside what is measured
        return url
