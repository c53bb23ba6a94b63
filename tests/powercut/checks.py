"""What must be true of a disk after a power failure, once Backstop has started on it."""

import contextlib
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from receiver.spool.files import APPENDED, REPLAYED
from receiver.spool.records import decode
from tests.powercut.traffic import Acknowledged
from tests.processes import wait_until

# Where they are on the disk. The spool's parent is created with it.
DATABASE, SPOOL = "backstop.db", "waiting/spool"
_REPLAYED_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """What is wrong: how many acknowledged callbacks are missing, and what is corrupt."""

    missing: int = 0
    corrupt: str = ""

    def __str__(self) -> str:
        return f"{self.missing} are missing" + (f", CORRUPT: {self.corrupt}" if self.corrupt else "")

    @property
    def is_good(self) -> bool:
        return not self.missing and not self.corrupt


def waiting_files(disk: Path) -> list[Path]:
    """Return the spool's files that are to be replayed."""
    spool = disk / SPOOL
    return [*spool.glob(APPENDED), *spool.glob(f"{REPLAYED}*")]


def check(disk: Path, acknowledged: Collection[Acknowledged]) -> Finding:
    """Tell what is corrupt. If nothing is, wait until the spool is replayed, and look for what was acknowledged."""
    try:
        # Only read: the recorder does not see changes by this process.
        with contextlib.closing(sqlite3.connect(f"file:{disk / DATABASE}?mode=ro", uri=True)) as ledger:
            (verdict,) = ledger.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict == "ok":
                with contextlib.suppress(TimeoutError):  # what has not left the spool is missing
                    wait_until(lambda: not waiting_files(disk), _REPLAYED_WITHIN_SECONDS, every=0.01)
            return Finding(_missing(ledger, acknowledged), "" if verdict == "ok" else verdict)
    except sqlite3.Error as problem:
        return Finding(len(acknowledged), str(problem))


def check_left(disk: Path, acknowledged: Collection[Acknowledged]) -> Finding:
    """Tell what is missing in the ledger and in the spool, and what is corrupt, before Backstop starts."""
    if not acknowledged and not (disk / DATABASE).exists():
        return Finding()
    lines = [line for path in waiting_files(disk) for line in path.read_bytes().splitlines(keepends=True)]
    spooled = {sha256(record[0].body).digest() for record in map(decode, lines) if record}
    try:
        with contextlib.closing(sqlite3.connect(disk / DATABASE)) as ledger:
            (verdict,) = ledger.execute("PRAGMA integrity_check(1)").fetchone()
            kept = spooled | _digests(ledger) if acknowledged else spooled
    except sqlite3.Error as problem:
        return Finding(len(acknowledged), str(problem))
    missing = sum(each.digest not in kept for each in acknowledged)
    return Finding(missing, "" if verdict == "ok" else verdict)


def _digests(ledger: sqlite3.Connection) -> set[bytes]:
    return {digest for (digest,) in ledger.execute("SELECT digest FROM delivery")}


def _missing(ledger: sqlite3.Connection, acknowledged: Collection[Acknowledged]) -> int:
    digests = _digests(ledger)
    succeeded = {task_id for (task_id,) in ledger.execute("SELECT id FROM task WHERE status = 'succeeded'")}
    kept = [
        each
        for each in acknowledged
        if each.digest in digests and (each.task_id is None or each.task_id in succeeded)
    ]
    return len(acknowledged) - len(kept)
