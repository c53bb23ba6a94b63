"""Where deliveries wait while the database is away: a file to which each is appended, checked and synced.

Upstream sends a callback once. When the database cannot take it, it goes here, and the sender is answered
when it is on this disk; when the database is back it goes through the same door as all others. A delivery
that is replayed twice, or was in the database after all, is kept once: it has its uid from the beginning.

All processes of a machine share one directory. `deliveries` is appended to; to be replayed it is renamed, so
that nothing is appended to a file that is being read. Each line is a checksum and a JSON object.
"""

import base64
import contextlib
import errno
import fcntl
import json
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal

from peewee import DataError, IntegrityError

from receiver.ledger.clock import from_iso, to_iso
from receiver.ledger.db import DATABASE_AWAY, describe
from receiver.ledger.results import Unreadable
from receiver.ledger.store import Callback

log = logging.getLogger(__name__)

REPLAY_EVERY_SECONDS = 5.0
_LOCK_WITHIN_SECONDS = 5.0  # an append takes as long as the disk does to sync
_LOOK_AGAIN_SECONDS = 0.005
_CHUNK = 2**20
_APPENDED, _REPLAYED, _DAMAGED = "deliveries", "replay-", "damaged-"


class Spool:
    """The spool in one directory, which is made where there is none."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def append(self, callback: Callback, received_at: datetime) -> None:
        """Keep a delivery on disk; it is there when this returns. Raises OSError when the disk cannot."""
        line = _encode(callback, received_at)
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._locked("a+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                _sync_directory(self.directory)
            try:
                _write(file, line if _ends_a_line(file, size) else b"\n" + line)
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), size)  # half a record must not spoil the one behind it
                raise

    def replay(self, take: Callable[[Callback, datetime], Any]) -> int:
        """Give the waiting deliveries to `take`, oldest first, and return how many it took.

        What `take` raises ends the replay, and the deliveries stay; records that are torn or damaged are
        reported and kept aside. Other processes may replay at the same time: each file goes to one of them.
        """
        self._set_aside()
        return sum(self._replay_file(path, take) for path in sorted(self.directory.glob(f"{_REPLAYED}*")))

    def depth(self) -> int | None:
        """Return how many deliveries wait; None when none could, as the directory cannot be used or made."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                return None
            names = os.listdir(self.directory)
            waiting = [name for name in names if name == _APPENDED or name.startswith(_REPLAYED)]
            return sum(_count_lines(self.directory / name) for name in waiting)
        except OSError:
            return None

    @contextmanager
    def _locked(self, mode: Literal["a+b", "rb"]) -> Iterator[BinaryIO]:
        """Hold the file that is appended to; OSError when somebody else does for too long."""
        path, deadline = self.directory / _APPENDED, time.monotonic() + _LOCK_WITHIN_SECONDS
        while time.monotonic() < deadline:
            with open(path, mode, buffering=0) as file:
                # Opened anew each time: it may be renamed for a replay, which holds it much longer.
                if _try_lock(file) and _is_same_file(file, path):
                    yield file
                    return
            time.sleep(_LOOK_AGAIN_SECONDS)
        raise OSError(errno.EBUSY, "the spool is held by another process")

    def _set_aside(self) -> None:
        with contextlib.suppress(FileNotFoundError), self._locked("rb"):
            path = self.directory / _APPENDED
            path.rename(self.directory / f"{_REPLAYED}{time.time_ns():020}")

    def _replay_file(self, path: Path, take: Callable[[Callback, datetime], Any]) -> int:
        try:
            with open(path, "rb") as file:
                if not _try_lock(file) or not _is_same_file(file, path):
                    return 0  # another process has it, or finished it before it was ours
                taken, damaged = 0, 0
                for line in file:
                    if _take_line(line, take):
                        taken += 1
                    else:
                        damaged += 1
                self._dispose(path, damaged)
                return taken
        except FileNotFoundError:
            return 0  # another process has finished it

    def _dispose(self, path: Path, damaged: int) -> None:
        if not damaged:
            path.unlink()
            return
        kept = path.rename(path.with_name(path.name.replace(_REPLAYED, _DAMAGED)))
        log.error(
            "The spool held %d damaged record(s), as after a crash; they are kept in %s.", damaged, kept
        )


def replay_while_running(spool: Spool, take: Callable[[Callback, datetime], Any]) -> None:
    """Replay the spool now and every few seconds, in a thread that ends with the process."""

    if spool.depth() is None:
        log.error(
            "SPOOL_DIR (%s) cannot be made or written to: with the database away, callbacks would be lost.",
            spool.directory,
        )

    def work() -> None:
        while True:
            try:
                if taken := spool.replay(take):
                    log.info("The database took what had waited in the spool; deliveries: %d.", taken)
            except (*DATABASE_AWAY, OSError) as problem:
                log.warning("Deliveries wait in the spool: %s", describe(problem))
            except Exception:
                # Whatever a record provokes: without this thread no delivery would leave the spool again.
                log.exception("The spool cannot be replayed.")
            time.sleep(REPLAY_EVERY_SECONDS)

    threading.Thread(target=work, name="spool", daemon=True).start()


def _take_line(line: bytes, take: Callable[[Callback, datetime], Any]) -> bool:
    """Let `take` have what a line holds; False when that is damaged, or no database could take it."""
    record = _decode(line)
    if record is None:
        return False
    try:
        take(*record)
    except (DataError, IntegrityError):
        log.exception("A delivery from the spool cannot be kept in the database.")
        return False
    return True


def _encode(callback: Callback, received_at: datetime) -> bytes:
    record = {
        "received_at": to_iso(received_at),
        "uid": callback.uid,
        "body": base64.b64encode(callback.body).decode(),
        "size": callback.size,
        "ref": callback.ref,
        "remote_addr": callback.remote_addr,
        "headers": list(callback.headers),
        "cut": [callback.cut.code, str(callback.cut)] if callback.cut else None,
    }
    content = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _decode(line: bytes) -> tuple[Callback, datetime] | None:
    """Return what a line holds, None when it is torn or damaged."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        return None
    record = json.loads(content)
    received_at = from_iso(record.pop("received_at"))
    record["body"] = base64.b64decode(record["body"])
    record["headers"] = [(name, value) for name, value in record["headers"]]
    record["cut"] = Unreadable(*record["cut"]) if record["cut"] else None
    return Callback(**record), received_at


def _count_lines(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:  # it may be replayed meanwhile
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))
    return 0


def _write(file: BinaryIO, line: bytes) -> None:
    if file.write(line) != len(line):  # what a disk does that is almost full
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _ends_a_line(file: BinaryIO, size: int) -> bool:
    """Tell whether a record can follow: a crash leaves a torn one, without the end of its line."""
    return size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n"


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
