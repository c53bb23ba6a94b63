"""SQLite: durable commits, one writer at a time, and a limit on waiting for the turn to write."""

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from peewee import OperationalError
from playhouse.pool import PooledSqliteDatabase

from receiver.file_lock import LockFile, open_locked
from receiver.ledger.engine.proxy import database

NOT_THERE = (
    "{} is not there. If it should be, put it back or correct DATABASE_URL. Otherwise make it:"
    " run `flask --app wsgi migrate`."
)
_SQLITE_OLDEST = (3, 35, 0)  # the first with RETURNING
_SQLITE_BUSY_TIMEOUT_MS = 10_000  # while a connection is set up
_SQLITE_BLOCKED_MS = 5
# Their sum stays below COMMIT_WITHIN_SECONDS, so that the log shows this cause and not a general time-out.
_TURN_WITHIN_SECONDS = 5.0
_BEGIN_WITHIN_SECONDS = 3.0
_BEGIN_AGAIN_SECONDS = 0.05
_sqlite_thread = threading.Lock()  # of this process
_LOOK_AGAIN_SECONDS = 0.0005
Taken = TypeVar("Taken")


def require_sqlite() -> None:
    """Exit when this Python's SQLite is too old."""
    if sqlite3.sqlite_version_info < _SQLITE_OLDEST:
        raise SystemExit(f"Backstop needs SQLite 3.35 or newer; this Python has {sqlite3.sqlite_version}.")


class DurableSqlite(PooledSqliteDatabase):  # type: ignore[misc]  # playhouse has no type hints
    """One database file. A commit is on disk when it returns.

    It never switches to another file of the same name. Only `make_file` makes a file. An empty one in the
    place of a ledger that was deleted, or is not mounted, would look like a ledger that has lost everything.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            path,
            max_connections=None,  # writers take turns, and readers never wait
            check_same_thread=False,  # the pool hands a connection to one thread at a time
            lock_type="IMMEDIATE",  # take the write lock first: upgrading a read lock may fail as busy
            pragmas=[
                # First, as switching to WAL may have to wait for other processes.
                ("busy_timeout", _SQLITE_BUSY_TIMEOUT_MS),
                ("journal_mode", "wal"),
                ("synchronous", "full"),
                ("foreign_keys", 1),
                # Pages. The web process makes checkpoints long before (checkpoints.py).
                ("wal_autocheckpoint", 16_000),
                # Keep statement journals in memory.
                ("temp_store", "memory"),
                ("busy_timeout", _SQLITE_BLOCKED_MS),
            ],
        )
        self._file: tuple[int, int] | None = None  # identity of the file that was opened first

    def make_file(self) -> None:
        """Make the file if it is missing. Raises OperationalError."""
        # Never open a file that is there: closing it would drop all locks that this process has on it, and
        # another process could delete the write-ahead log that is still written to.
        if not is_missing(self.database):
            return
        try:
            open(self.database, "ab").close()
        except OSError as problem:
            raise OperationalError(_cannot_open("unable to open database file", self.database)) from problem

    def _connect(self) -> Any:
        if self._file is None and is_missing(self.database):
            raise OperationalError(NOT_THERE.format(os.path.abspath(self.database)))
        # Writes to a deleted or replaced file would be lost. Do not open the new file either: closing the
        # last connection to the old file would delete the new file's write-ahead log.
        if self._file is not None and self._file != _identity(self.database):
            raise OperationalError(
                f"{self.database} was deleted, or replaced while it was open: restart all processes"
            )
        try:
            connection = super()._connect()
        except sqlite3.Error as problem:
            raise OperationalError(self._explain(problem)) from problem
        self._file = self._file or _identity(self.database)
        return connection

    def _explain(self, problem: sqlite3.Error) -> str:
        if "unable to open" in str(problem):
            return _cannot_open(str(problem), self.database)
        return f"{problem} ({os.path.abspath(self.database)})"

    def begin(self, lock_type: str | None = None) -> None:
        """Begin a transaction. Wait while another program holds the file's lock.

        Wait here and not in SQLite's busy handler, which would block all greenlets of the process.
        """
        deadline = time.monotonic() + _BEGIN_WITHIN_SECONDS
        while True:
            try:
                super().begin(lock_type)
                return
            except OperationalError as problem:
                if "locked" not in str(problem) or time.monotonic() > deadline:
                    raise
            time.sleep(_BEGIN_AGAIN_SECONDS)


def damage_in(connection: sqlite3.Connection) -> str | None:
    """Return what is wrong with the structure of a connection's file; None if nothing. It reads all of it."""
    try:
        ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as problem:
        said = str(problem)
    return None if said == "ok" else " ".join(said.split())


def _cannot_open(problem: str, path: str) -> str:
    path = os.path.abspath(path)
    return f"{problem} {path}: its directory must exist, and this user must be able to write to both"


def is_missing(path: str) -> bool:
    """Tell whether there is no such file."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it may be there: a connection tells more
        pass
    return False


def _identity(path: str) -> tuple[int, int] | None:
    """Return a file's device and inode, or None when there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_lock(path: str | Path) -> FileIO:
    # It is never written to, and may belong to another user.
    return FileIO(path, "rb", opener=_open_or_create)


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


_turns = LockFile(_open_lock)  # only for the thread that has _sqlite_thread


@contextmanager
def sqlite_turn() -> Iterator[None]:
    """Admit one thread of one process at a time to the block. Raises OperationalError after some seconds."""
    deadline = time.monotonic() + _TURN_WITHIN_SECONDS
    if not _sqlite_thread.acquire(timeout=_TURN_WITHIN_SECONDS):
        raise OperationalError("database is locked: another request has been writing for too long")
    try:
        _take(_turns.take, within=deadline - time.monotonic())
        try:
            yield
        finally:
            _turns.release()
    finally:
        _sqlite_thread.release()
        # Nothing above lets other greenlets run: one that wrote again and again would stop all others.
        time.sleep(0)


@contextmanager
def sqlite_lock() -> Iterator[None]:
    """Hold the lock file beside the database, for what takes long. One process holds it at a time."""
    with _take(partial(open_locked, _open_lock), within=math.inf):
        yield


def _take(take: Callable[..., Taken], within: float) -> Taken:
    try:
        return take(f"{database.obj.database}.lock", within=within, look_every=_LOOK_AGAIN_SECONDS)
    except TimeoutError:
        raise OperationalError("database is locked: another process is writing") from None
    except OSError as problem:
        raise OperationalError(f"the lock beside the database cannot be taken: {problem}") from None
