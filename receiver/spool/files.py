"""The spool's files: appends to them under a lock, and renames them for replay."""

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Literal

from receiver.file_lock import open_locked
from receiver.native import NativeThreads
from receiver.spool import records as spool_records
from receiver.spool.records import Record

# File names; those that end with a hyphen are prefixes.
APPENDED, ASIDE, REPLAYED = "deliveries", "set-aside", "replay-"
DAMAGED, TORN = "damaged-", "torn-"
_LOCK_WITHIN_SECONDS = 5.0  # each append of another process starts this anew
_LOOK_AGAIN_SECONDS = 0.002
# The spool's own threads, so that no other work delays it.
_disk = NativeThreads(2)


def append(path: Path, group: Sequence[Record]) -> list[Exception | None]:
    """Append records with a single sync. Return the error of each, or None."""
    while True:
        with locked(path, "a+b") as file:
            number = spool_records.last_number(file)
            if number is not None:
                return _disk.run(_append_after, file, number, group)
            rename_to_replay(path)  # its last record is torn or old: nothing can be appended


def _append_after(file: BinaryIO, number: int, group: Sequence[Record]) -> list[Exception | None]:
    began = os.fstat(file.fileno()).st_size
    try:
        if began == 0:
            # Before the first record: otherwise a process that died here would leave records in a file whose
            # name is not on disk, and the next one to append would not know.
            _sync_name(Path(file.name))
        problems = _write_group(file, number, group)
        if os.fstat(file.fileno()).st_size > began:
            os.fsync(file.fileno())
    except OSError as failed:
        os.ftruncate(file.fileno(), began)
        return [failed] * len(group)
    return problems


def _write_group(file: BinaryIO, number: int, group: Sequence[Record]) -> list[Exception | None]:
    problems: list[Exception | None] = []
    end = os.fstat(file.fileno()).st_size
    for record in group:
        problem: Exception | None = None
        try:
            end += _write(file, spool_records.encode(*record, number + 1))
            number += 1
        except Exception as failed:  # noqa: BLE001 - it is raised in the record's own request; a smaller record may fit
            problem = failed
            os.ftruncate(file.fileno(), end)  # remove a partial record, or it would damage the next one
        problems.append(problem)
    return problems


def _write(file: BinaryIO, line: bytes) -> int:
    if file.write(line) != len(line):  # a short write: the disk is almost full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return len(line)


@contextmanager
def locked(path: Path, mode: Literal["a+b", "rb"]) -> Iterator[BinaryIO]:
    """Open and lock a file that is appended to.

    Raises OSError when another process holds the lock for too long without appending anything.
    """
    try:
        file = open_locked(
            partial(FileIO, mode=mode),
            path,
            within=_LOCK_WITHIN_SECONDS,
            look_every=_LOOK_AGAIN_SECONDS,
        )
    except TimeoutError:
        raise OSError(errno.EBUSY, "the spool is held by another process") from None
    with file:
        yield file


def rename_to_replay(path: Path) -> None:
    """Rename a file so that it is replayed. The next append creates a new one."""
    path.rename(path.with_name(f"{REPLAYED}{time.time_ns():020}"))


def count(path: Path) -> int:
    """Return how many records a file holds; 0 when it does not exist."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:  # replayed meanwhile
        return spool_records.count(file)
    return 0


def sync_names(directory: Path) -> None:
    """Sync the names of a directory and of all above it in its file system. Any of them may be new."""
    directory = directory.resolve()
    with contextlib.suppress(PermissionError):  # what this user may not read is not new
        for each in (directory, *directory.parents):
            if os.path.ismount(each):
                return
            _disk.run(_sync_name, each)


def _sync_name(path: Path) -> None:
    # The name of a file or directory is an entry of its parent, which needs a sync of its own.
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
