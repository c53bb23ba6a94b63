"""Where deliveries wait while the database is away: a file to which they are appended, checked and synced.

Upstream sends a callback once. When the database cannot take it, it goes here, and the sender is answered
when it is on this disk; when the database is back it goes through the same door as all others. A delivery
that is replayed twice, or was in the database after all, is kept once: it has its uid from the beginning.

All processes of a machine share one directory. `deliveries` is appended to; to be replayed it is renamed, so
that nothing is appended to a file that is being read. `set-aside` holds what the database refuses. What the
requests of a process append at one moment shares one sync.

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
from receiver.spool.files import APPENDED, ASIDE, REPLAYED, append, count, locked, rename_to_replay
from receiver.spool.records import Record
from receiver.spool.replay import Replay, Take

log = logging.getLogger(__name__)

REPLAY_EVERY_SECONDS = 5.0
_REPLAY_AT_ONCE = 64
_TRIED_BYTES = 16_384  # a disk that has less left is full
# With COMMIT_WITHIN_SECONDS this stays below gunicorn's graceful_timeout (20 s).
_APPEND_WITHIN_SECONDS = 8.0
_GIVE_WAY_SECONDS = 0.005  # long enough for another process to look
# All that a process can receive at once: each more sync would cost as long as the disk takes.
_MOST_TOGETHER = 512


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

    def replay(self, take: Take, at_once: int = 1) -> int:
        """Give the waiting deliveries to `take`, oldest first, and return how many it took.

        With `at_once` so many threads call it, so that what they bring can be committed together.
        When `take` raises what says that the database is away, the replay ends, and the deliveries stay.
        A delivery that makes it raise anything else is set aside. Records that are torn or damaged are
        reported and kept. Other processes may replay at the same time: each file goes to one of them.
        """
        # First what waits from before, so that no more files come to be while the database is away.
        taken = self._replay_files(take, at_once)
        self._rename_to_replay(APPENDED)
        return taken + self._replay_files(take, at_once)

    def retry_set_aside(self) -> None:
        """Let the next replay try again what was set aside: this version may be able to do it."""
        self._rename_to_replay(ASIDE)

    def depth(self) -> int | None:
        """Return how many deliveries wait; None when none could, as the directory cannot be used or made.

        Reads the ends of files only. Of a replay in progress all deliveries count until it is done.
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
        """Write a little and delete it again. Raises OSError when the disk cannot."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.directory, prefix=".tried-") as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def set_aside(self) -> int:
        """Return how many deliveries are kept that the database refuses."""
        with contextlib.suppress(OSError):
            return count(self.directory / ASIDE)
        return 0

    def _rename_to_replay(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), locked(self.directory / name, "rb"):
            rename_to_replay(self.directory / name)

    def _replay_files(self, take: Take, at_once: int) -> int:
        paths = sorted(self.directory.glob(f"{REPLAYED}*"))
        return sum(Replay(path, take, at_once).run() for path in paths)


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
                if taken := spool.replay(take, _REPLAY_AT_ONCE):
                    log.info("The database took what had waited in the spool; deliveries: %d.", taken)
            except (*DATABASE_ERRORS, OSError) as problem:
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
            return append(directory / APPENDED, group)
        except OSError as problem:
            return [problem] * len(group)
        finally:
            let_go_at = time.monotonic()

    return GroupCommit(write, _APPEND_WITHIN_SECONDS, _MOST_TOGETHER)
