"""Checkpoints SQLite's write-ahead log in the background, beside the requests.

Without this, SQLite makes the checkpoint in whichever commit fills the log. Every request in that commit then
waits while many pages are written. Correctness does not depend on this module: the log itself is durable, and
`wal_autocheckpoint` (sqlite.py) still limits its size.
"""

import logging
import sqlite3
from collections.abc import Callable
from urllib.parse import quote

from receiver.ledger.engine.sqlite import is_missing

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.1


class Checkpoints:
    """Makes checkpoints of one database file, on a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._url = f"file:{quote(path)}?mode=rw"  # do not create a missing database
        self._connection: sqlite3.Connection | None = None
        self._problem = ""

    def make(self) -> None:
        """Make a checkpoint without waiting for readers or writers. Log each new problem once."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(self._url, uri=True, isolation_level=None)
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._problem = ""
        except sqlite3.Error as problem:
            self.close()
            # That the file is not there is told by what needs it.
            if str(problem) != self._problem and not is_missing(self._path):
                self._problem = str(problem)
                log.warning("A checkpoint of SQLite's write-ahead log failed: %s", problem)

    def close(self) -> None:
        """Close the connection; the next checkpoint opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def checkpoint_while_running(path: str, sleep: Callable[[float], None]) -> None:
    """Make a checkpoint every EVERY_SECONDS, for ever. Run it in a thread.

    SQLite blocks its thread. Under gevent this must be a native thread, with the native `sleep`.
    """
    checkpoints = Checkpoints(path)
    while True:
        checkpoints.make()
        sleep(EVERY_SECONDS)
