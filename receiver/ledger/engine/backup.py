"""Copies the SQLite file while others write to it."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from receiver.ledger.engine.sqlite import damage_in

# 1 MB. Half of the time the disk is left to others.
_PAGES_AT_ONCE = 256


class Damaged(Exception):
    """The database's file is damaged. The message says how."""


def back_up(path: str, target: str, tell: Callable[[int, int], None]) -> int:
    """Copy the database file to `target`, as it is now, and sync that. Return its size in bytes.

    Calls `tell` with the number of pages copied and of all pages. Raises FileExistsError if `target` exists,
    Damaged if the copy is damaged as the database is, and OSError or sqlite3.Error if a file cannot be read
    or written. Then no `target` is left.
    """
    if os.path.exists(target):
        raise FileExistsError(target)
    part = f"{target}.part"
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _copy(path, part, tell)
        _sync(part)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    _sync(str(Path(target).resolve().parent))
    return os.path.getsize(target)


def _copy(path: str, part: str, tell: Callable[[int, int], None]) -> None:
    began = time.monotonic()

    def pause(status: int, remaining: int, total: int) -> None:
        nonlocal began
        tell(total - remaining, total)
        time.sleep(time.monotonic() - began)
        began = time.monotonic()

    url = f"file:{quote(path)}?mode=rw"  # do not create a missing database
    with (
        closing(sqlite3.connect(url, uri=True, isolation_level=None)) as source,
        closing(sqlite3.connect(part, isolation_level=None)) as copy,
    ):
        # In one transaction: otherwise the copy would begin again at each write of another process.
        source.execute("BEGIN")
        source.execute("SELECT 1 FROM sqlite_master").fetchone()
        copy.execute("PRAGMA synchronous = OFF")  # it is synced at the end
        source.backup(copy, pages=_PAGES_AT_ONCE, progress=pause)
        if damage := damage_in(copy):
            raise Damaged(damage)


def _sync(path: str) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
