"""The files of the spool: appending to them under a lock, and giving them other names."""

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

# What each is called, or how its name begins.
APPENDED, ASIDE, REPLAYED, DAMAGED = "deliveries", "set-aside", "replay-", "damaged-"
_LOCK_WITHIN_SECONDS = 5.0  # without anything being appended meanwhile
_LOOK_AGAIN_SECONDS = 0.002
# Of the spool alone: nothing else may keep it waiting.
_disk = NativeThreads(2)


def append(path: Path, group: Sequence[Record]) -> list[Exception | None]:
    """Append records and sync them together; return what went wrong with each."""
    while True:
        with locked(path, "a+b") as file:
            number = spool_records.last_number(file)
            if number is not None:
                return _disk.run(_append_after, file, number, group)
            rename_to_replay(path)  # no record can follow what is in it


def _append_after(file: BinaryIO, number: int, group: Sequence[Record]) -> list[Exception | None]:
    began = end = os.fstat(file.fileno()).st_size
    problems: list[Exception | None] = []
    for record in group:
        problem: Exception | None = None
        try:
            end += _write(file, spool_records.encode(*record, number + 1))
            number += 1
        except Exception as failed:  # noqa: BLE001 - it is raised in the request it concerns; a smaller one may fit
            problem = failed
            os.ftruncate(file.fileno(), end)  # half a record must not spoil the one behind it
        problems.append(problem)
    try:
        if end > began:
            os.fsync(file.fileno())
        if began == 0:
            _sync_directory(Path(file.name).parent)
    except OSError as failed:
        os.ftruncate(file.fileno(), began)
        return [failed] * len(group)
    return problems


def _write(file: BinaryIO, line: bytes) -> int:
    if file.write(line) != len(line):  # what a disk does that is almost full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return len(line)


@contextmanager
def locked(path: Path, mode: Literal["a+b", "rb"]) -> Iterator[BinaryIO]:
    """Hold a file that is appended to; OSError when somebody else does for too long and appends nothing."""
    try:
        file = open_locked(
            partial(FileIO, path, mode),
            path,
            within=_LOCK_WITHIN_SECONDS,
            look_every=_LOOK_AGAIN_SECONDS,
        )
    except TimeoutError:
        raise OSError(errno.EBUSY, "the spool is held by another process") from None
    with file:
        yield file


def rename_to_replay(path: Path) -> None:
    """Let a file be replayed; the next append begins another."""
    path.rename(path.with_name(f"{REPLAYED}{time.time_ns():020}"))


def count(path: Path) -> int:
    """Return how many records a file holds; 0 when there is none."""
    with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:  # replayed meanwhile
        return spool_records.count(file)
    return 0


def _sync_directory(directory: Path) -> None:
    # A new file's name is in its directory, which is synced apart from it.
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
