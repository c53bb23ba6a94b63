"""Moves what SQLite's write-ahead log holds into the database, beside the requests.

Otherwise the commit that makes the log long enough does it, and all who wait for that commit wait for many
pages to be written. Nothing depends on it: what is in the log is durable, and a log that grows all the same
is moved by a commit after all (`wal_autocheckpoint` in db.py).
"""

import logging
import sqlite3
from collections.abc import Callable
from urllib.parse import quote

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.1


class Checkpoints:
    """Of the database in one file, on a connection of their own."""

    def __init__(self, path: str) -> None:
        self._url = f"file:{quote(path)}?mode=rw"  # a database that is not there must not come to be
        self._connection: sqlite3.Connection | None = None
        self._problem = ""

    def make(self) -> None:
        """Move what is in the log now, without waiting for anybody. What is wrong is logged once."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._url, uri=True, isolation_level=None)
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._problem = ""
        except sqlite3.Error as problem:
            self.close()
            if str(problem) != self._problem:
                self._problem = str(problem)
                log.warning("SQLite's log cannot be moved into the database: %s", problem)

    def close(self) -> None:
        """Give the connection up; the next checkpoint opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def checkpoint_while_running(path: str, sleep: Callable[[float], None]) -> None:
    """Make a checkpoint every few moments, for ever: a thread's work.

    SQLite blocks it: where requests are greenlets it must be a thread of the system, with its `sleep`.
    """
    checkpoints = Checkpoints(path)
    while True:
        checkpoints.make()
        sleep(EVERY_SECONDS)
