"""The spool: a directory on disk where deliveries wait while the database is down.

Upstream sends a callback once. When the database cannot store it, it is appended to a file, synced, and only
then acknowledged. Once the database is back, the delivery is replayed through the same function as any other.
Replay is idempotent: each delivery has had a uid since its arrival.

All processes of a machine share one directory. New deliveries are appended to `deliveries`. For a replay that
file is renamed, so that nothing is appended to a file that is being read. `set-aside` holds deliveries that
the database refuses. Requests of one process that append at the same moment share one sync.

See "Group commit and spool" in docs/design.md.
"""

import contextlib
import errno
import functools
import logging
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from peewee import OperationalError

from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.group_commit import GroupCommit
from receiver.ledger.store import Callback
from receiver.spool.files import (
    APPENDED,
    ASIDE,
    DAMAGED,
    REPLAYED,
    append,
    count,
    locked,
    rename_to_replay,
    sync_names,
)
from receiver.spool.records import Record
from receiver.spool.replay import Replay, Take

log = logging.getLogger(__name__)

REPLAY_EVERY_SECONDS = 5.0
_REPLAY_AT_ONCE = 64
_TRIED_BYTES = 16_384  # a disk with less space left counts as full
# With COMMIT_WITHIN_SECONDS this stays below gunicorn's graceful_timeout (20 s).
_APPEND_WITHIN_SECONDS = 8.0
_GIVE_WAY_SECONDS = 0.005  # longer than the pause between another process's tries for the lock
# As many as a process can receive at once: each additional group would cost another sync.
_MOST_TOGETHER = 512


class Spool:
    """The spool in one directory, which is created if it does not exist."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def append(self, callback: Callback, received_at: datetime) -> None:
        """Append a delivery. It is on disk when this returns. Raises OSError when that fails."""
        try:
            problem = _appends(self.directory).commit((callback, received_at))
        except OperationalError:
            raise OSError(errno.EBUSY, "the spool's disk did not answer in time") from None
        if problem is not None:
            raise problem

    def replay(self, take: Take, at_once: int = 1) -> int:
        """Pass the waiting deliveries to `take`, oldest first, and return how many it took.

        `at_once` threads call `take`, so that their deliveries can share a transaction. When `take` raises an
        error of a database outage, the replay ends and the deliveries stay. When a delivery itself is the
        cause, it is set aside. Damaged records are logged and kept. Several processes may replay at the same
        time: each file goes to one of them.
        """
        # Finish earlier files first, so that no more files pile up while the database is down.
        taken = self._replay_files(take, at_once)
        self._rename_to_replay(APPENDED)
        return taken + self._replay_files(take, at_once)

    def retry_set_aside(self) -> None:
        """Let the next replay retry what was set aside. A new version may be able to store it."""
        self._rename_to_replay(ASIDE)

    def depth(self) -> int | None:
        """Return how many deliveries wait; None when the directory cannot be used or created.

        Reads only the ends of files. While a file is replayed, all of its deliveries count.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
                return None
            names = os.listdir(self.directory)
            waiting = [name for name in names if name == APPENDED or name.startswith(REPLAYED)]
            return sum(count(self.directory / name) for name in waiting)
        except OSError:
            return None

    def try_a_write(self) -> None:
        """Write a small file and delete it. Raises OSError when that fails."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.directory, prefix=".tried-") as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def set_aside(self) -> int:
        """Return how many deliveries were set aside because the database refused them."""
        with contextlib.suppress(OSError):
            return count(self.directory / ASIDE)
        return 0

    def damaged(self) -> int:
        """Return how many files with damaged records are kept: they may be acknowledged deliveries."""
        with contextlib.suppress(OSError):
            return sum(name.startswith(DAMAGED) for name in os.listdir(self.directory))
        return 0

    def bytes(self) -> int:
        """Return how many bytes its files have."""
        with contextlib.suppress(OSError):
            return sum(entry.stat().st_size for entry in os.scandir(self.directory) if entry.is_file())
        return 0

    def _rename_to_replay(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), locked(self.directory / name, "rb"):
            rename_to_replay(self.directory / name)

    def _replay_files(self, take: Take, at_once: int) -> int:
        paths = sorted(self.directory.glob(f"{REPLAYED}*"))
        return sum(Replay(path, take, at_once).run() for path in paths)


def replay_while_running(spool: Spool, take: Take) -> None:
    """Start a daemon thread that replays the spool now and every few seconds."""

    if spool.depth() is None:
        log.error(
            "SPOOL_DIR (%s) cannot be created or written to: a database outage would lose callbacks.",
            spool.directory,
        )

    def work() -> None:
        with contextlib.suppress(OSError):
            spool.retry_set_aside()
        while True:
            try:
                if taken := spool.replay(take, _REPLAY_AT_ONCE):
                    log.info("Replayed deliveries from the spool: %d.", taken)
            except DATABASE_ERRORS as problem:
                log.warning("Deliveries wait in the spool: %s", describe(problem))
            except OSError as problem:
                log.warning("The spool cannot be used, trying again soon: %s", problem)
            except Exception:
                # Go on: without this thread no delivery would leave the spool.
                log.exception("The spool cannot be replayed.")
            time.sleep(REPLAY_EVERY_SECONDS)

    threading.Thread(target=work, name="spool", daemon=True).start()


@functools.cache
def _appends(directory: Path) -> GroupCommit[Record, Exception | None]:
    """Return this process's group commit for a directory."""
    let_go_at = -_GIVE_WAY_SECONDS
    synced: int | None = None  # the inode of the directory whose name this process has synced

    def write(group: Sequence[Record]) -> list[Exception | None]:
        nonlocal let_go_at, synced
        # Leave the lock free for a moment, as other processes only poll for it.
        time.sleep(max(let_go_at + _GIVE_WAY_SECONDS - time.monotonic(), 0))
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if synced != (inode := directory.stat().st_ino):
                sync_names(directory)
                synced = inode
            return append(directory / APPENDED, group)
        except OSError as problem:
            return [problem] * len(group)
        finally:
            let_go_at = time.monotonic()

    return GroupCommit(write, _APPEND_WITHIN_SECONDS, _MOST_TOGETHER)
