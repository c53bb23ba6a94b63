"""Ways in which the database takes no callback while the spool does."""

import contextlib
import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from tests.powercut.recorder import Recorder

Outage = Callable[[Path, Recorder], AbstractContextManager[None]]


def no_outage(database: Path, recorder: Recorder) -> AbstractContextManager[None]:
    """All is well."""
    return nullcontext()


@contextmanager
def locked(database: Path, recorder: Recorder) -> Iterator[None]:
    """Another program holds an exclusive transaction."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def turn_taken(database: Path, recorder: Recorder) -> Iterator[None]:
    """Another process holds the lock beside the database and does not let it go."""
    with open(f"{database}.lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def log_full(database: Path, recorder: Recorder) -> Iterator[None]:
    """No space is left for SQLite's write-ahead log."""
    recorder.fill_log(True)
    try:
        yield
    finally:
        recorder.fill_log(False)


OUTAGES: dict[str, Outage] = {
    "as usual": no_outage,
    "locked": locked,
    "its turn taken": turn_taken,
    "its log full": log_full,
}
