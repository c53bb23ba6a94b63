"""Locks of files (flock), by which processes take turns."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def open_locked(
    open_file: Callable[[str | Path], BinaryIO], path: str | Path, *, within: float, look_every: float
) -> BinaryIO:
    """Return the open file at a path, with its lock held; closing it releases the lock.

    Raises TimeoutError when another process holds the lock for `within` seconds, and appends nothing in all
    that time.
    """
    deadline, seen = time.monotonic() + within, None
    while True:
        # Opened anew each time: the file may be renamed meanwhile, and a fork shares the locks of open files.
        file = open_file(path)
        if try_lock(file) and is_same_file(file, path):
            return file
        status = os.fstat(file.fileno())
        file.close()
        if seen != (status.st_ino, status.st_size):
            deadline, seen = time.monotonic() + within, (status.st_ino, status.st_size)
        if time.monotonic() > deadline:
            raise TimeoutError("the lock is held by another process")
        time.sleep(look_every)


class LockFile:
    """A lock that a process takes often: its file stays open. One thread at a time may use this object."""

    def __init__(self, open_file: Callable[[str | Path], BinaryIO]) -> None:
        self._open = open_file
        self._kept: BinaryIO | None = None
        self._kept_by = 0  # the process that opened it: a fork shares the locks of open files

    def __del__(self) -> None:
        if self._kept:
            self._kept.close()

    def take(self, path: str | Path, *, within: float, look_every: float) -> None:
        """Take the lock of the file at a path, as `open_locked` does, until `release`."""
        if self._kept and self._kept_by == os.getpid() and try_lock(self._kept):
            if is_same_file(self._kept, path):
                return
            self.release()
        file = open_locked(self._open, path, within=within, look_every=look_every)
        if self._kept:
            self._kept.close()
        self._kept, self._kept_by = file, os.getpid()

    def release(self) -> None:
        """Release the lock. The file stays open."""
        assert self._kept is not None
        fcntl.flock(self._kept, fcntl.LOCK_UN)


def try_lock(file: BinaryIO) -> bool:
    """Take a file's lock; False when another has it."""
    # Without waiting: that would stop all other requests of the process.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_same_file(file: BinaryIO, path: str | Path) -> bool:
    """Tell whether an open file still has that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
