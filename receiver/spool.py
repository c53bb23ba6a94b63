"""Where deliveries wait while the database is away: a file to which they are appended, checked and synced.

Upstream sends a callback once. When the database cannot take it, it goes here, and the sender is answered
when it is on this disk; when the database is back it goes through the same door as all others. A delivery
that is replayed twice, or was in the database after all, is kept once: it has its uid from the beginning.

All processes of a machine share one directory. `deliveries` is appended to; to be replayed it is renamed, so
that nothing is appended to a file that is being read. `set-aside` holds what the database refuses. What the
requests of a process append at one moment shares one sync.
"""

import contextlib
import errno
import fcntl
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from peewee import OperationalError

from receiver import records
from receiver.ledger.db import DATABASE_AWAY, describe, is_of_data
from receiver.ledger.group_commit import GroupCommit
from receiver.ledger.store import Callback
from receiver.native import NativeThreads
from receiver.records import Record

log = logging.getLogger(__name__)

REPLAY_EVERY_SECONDS = 5.0
# With COMMIT_WITHIN_SECONDS this stays below gunicorn's graceful_timeout (20 s).
_APPEND_WITHIN_SECONDS = 8.0
_LOCK_WITHIN_SECONDS = 5.0  # without anything being appended meanwhile
_LOOK_AGAIN_SECONDS = 0.002
_GIVE_WAY_SECONDS = 0.005  # long enough for another process to look
# All that a process can receive at once: each more sync would cost as long as the disk takes.
_MOST_TOGETHER = 512
_APPENDED, _ASIDE, _REPLAYED, _DAMAGED = "deliveries", "set-aside", "replay-", "damaged-"
# Of the spool alone: nothing else may keep it waiting.
_disk = NativeThreads(2)

Take = Callable[[Callback, datetime], Any]


class Spool:
    """The spool in one directory, which is made where there is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def append(self, callback: Callback, received_at: datetime) -> None:
        """Keep a delivery on disk; it is there when this returns. Raises OSError when the disk cannot."""
        try:
            problem = _appends(self.directory).commit((callback, received_at))
        except OperationalError:
            raise OSError(errno.EBUSY, "the disk of the spool takes too long") from None
        if problem is not None:
            raise problem

    def replay(self, take: Take) -> int:
        """Give the waiting deliveries to `take`, oldest first, and return how many it took.

        When `take` raises what says that the database is away, the replay ends, and the deliveries stay.
        A delivery that makes it raise anything else is set aside. Records that are torn or damaged are
        reported and kept. Other processes may replay at the same time: each file goes to one of them.
        """
        # First what waits from before, so that no more files come to be while the database is away.
        taken = self._replay_files(take)
        self._rename_to_replay(_APPENDED)
        return taken + self._replay_files(take)

    def retry_set_aside(self) -> None:
        """Let the next replay try again what was set aside: this version may be able to do it."""
        self._rename_to_replay(_ASIDE)

    def depth(self) -> int | None:
        """Return how many deliveries wait; None when none could, as the directory cannot be used or made.

        Reads the ends of files only. Of a replay in progress all deliveries count until it is done.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                return None
            names = os.listdir(self.directory)
            waiting = [name for name in names if name == _APPENDED or name.startswith(_REPLAYED)]
            return sum(_count(self.directory / name) for name in waiting)
        except OSError:
            return None

    def set_aside(self) -> int:
        """Return how many deliveries are kept that the database refuses."""
        with contextlib.suppress(OSError):
            return _count(self.directory / _ASIDE)
        return 0

    def _rename_to_replay(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), _locked(self.directory / name, "rb"):
            _rename_to_replay(self.directory / name)

    def _replay_files(self, take: Take) -> int:
        return sum(self._replay_file(path, take) for path in sorted(self.directory.glob(f"{_REPLAYED}*")))

    def _replay_file(self, path: Path, take: Take) -> int:
        counts = {"taken": 0, "refused": 0, "damaged": 0}
        try:
            with open(path, "rb") as file:
                if not _try_lock(file) or not _is_same_file(file, path):
                    return 0  # another process has it, or finished it before it was ours
                for line in file:
                    counts[self._replay_line(line, take, is_first=not counts["refused"])] += 1
                self._dispose(path, counts)
        except FileNotFoundError:
            return 0  # another process has finished it
        return counts["taken"]

    def _replay_line(self, line: bytes, take: Take, is_first: bool) -> Literal["taken", "refused", "damaged"]:
        record = records.decode(line)
        if record is None:
            return "damaged"
        try:
            take(*record)
        except Exception as problem:
            if not is_of_data(problem):
                raise
            if is_first:  # one traceback a file: it may hold thousands
                log.exception("The database refuses a delivery of the spool.")
            (failed,) = _append(self.directory / _ASIDE, [record])
            if failed is not None:
                raise failed from None
            return "refused"
        return "taken"

    def _dispose(self, path: Path, counts: dict[str, int]) -> None:
        if counts["refused"]:
            log.error(
                "The database refuses deliveries: %d. They are kept in %s, and tried again when the web"
                " process starts.",
                counts["refused"],
                self.directory / _ASIDE,
            )
        if not counts["damaged"]:
            path.unlink()
            return
        kept = path.rename(path.with_name(path.name.replace(_REPLAYED, _DAMAGED)))
        log.error(
            "The spool held %d damaged record(s), as after a crash; they are kept in %s.",
            counts["damaged"],
            kept,
        )


def replay_while_running(spool: Spool, take: Take) -> None:
    """Replay the spool now and every few seconds, in a thread that ends with the process."""

    if spool.depth() is None:
        log.error(
            "SPOOL_DIR (%s) cannot be made or written to: with the database away, callbacks would be lost.",
            spool.directory,
        )

    def work() -> None:
        with contextlib.suppress(OSError):
            spool.retry_set_aside()
        while True:
            try:
                if taken := spool.replay(take):
                    log.info("The database took what had waited in the spool; deliveries: %d.", taken)
            except (*DATABASE_AWAY, OSError) as problem:
                log.warning("Deliveries wait in the spool: %s", describe(problem))
            except Exception:
                # Without this thread no delivery would leave the spool again.
                log.exception("The spool cannot be replayed.")
            time.sleep(REPLAY_EVERY_SECONDS)

    threading.Thread(target=work, name="spool", daemon=True).start()


@functools.cache
def _appends(directory: Path) -> GroupCommit[Record, Exception | None]:
    """Return what gathers all that this process appends in a directory."""
    let_go_at = -_GIVE_WAY_SECONDS

    def write(group: Sequence[Record]) -> list[Exception | None]:
        nonlocal let_go_at
        # Let other processes have the lock in between: they only look for it now and then.
        time.sleep(max(let_go_at + _GIVE_WAY_SECONDS - time.monotonic(), 0))
        try:
            directory.mkdir(parents=True, exist_ok=True)
            return _append(directory / _APPENDED, group)
        except OSError as problem:
            return [problem] * len(group)
        finally:
            let_go_at = time.monotonic()

    return GroupCommit(write, _APPEND_WITHIN_SECONDS, _MOST_TOGETHER)


def _append(path: Path, group: Sequence[Record]) -> list[Exception | None]:
    """Append records and sync them together; return what went wrong with each."""
    while True:
        with _locked(path, "a+b") as file:
            number = records.last_number(file)
            if number is not None:
                return _disk.run(_append_after, file, number, group)
            _rename_to_replay(path)  # no record can follow what is in it


def _append_after(file: BinaryIO, number: int, group: Sequence[Record]) -> list[Exception | None]:
    began = end = os.fstat(file.fileno()).st_size
    problems: list[Exception | None] = []
    for record in group:
        problem: Exception | None = None
        try:
            end += _write(file, records.encode(*record, number + 1))
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
def _locked(path: Path, mode: Literal["a+b", "rb"]) -> Iterator[BinaryIO]:
    """Hold a file that is appended to; OSError when somebody else does for too long and appends nothing."""
    deadline, seen = time.monotonic() + _LOCK_WITHIN_SECONDS, None
    while time.monotonic() < deadline:
        with open(path, mode, buffering=0) as file:
            # Opened anew each time: it may be renamed for a replay, which holds it much longer.
            if _try_lock(file) and _is_same_file(file, path):
                yield file
                return
            status = os.fstat(file.fileno())
        if (status.st_ino, status.st_size) != seen:
            deadline, seen = time.monotonic() + _LOCK_WITHIN_SECONDS, (status.st_ino, status.st_size)
        time.sleep(_LOOK_AGAIN_SECONDS)
    raise OSError(errno.EBUSY, "the spool is held by another process")


def _rename_to_replay(path: Path) -> None:
    path.rename(path.with_name(f"{_REPLAYED}{time.time_ns():020}"))


def _count(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError), open(path, "rb", buffering=0) as file:  # replayed meanwhile
        return records.count(file)
    return 0


def _try_lock(file: BinaryIO) -> bool:
    # Without waiting: that would stop all other requests of the process.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sync_directory(directory: Path) -> None:
    # A new file's name is in its directory, which is synced apart from it.
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
