"""What must be true of a disk after a power failure, once Backstop has started on it."""

import contextlib
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from receiver.spool.files import APPENDED, REPLAYED
from tests.powercut.traffic import Acknowledged
from tests.processes import wait_until

_REPLAYED_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Finding:
    """What is wrong: how many acknowledged callbacks are missing, and what is corrupt."""

    missing: int = 0
    corrupt: str = ""

    @property
    def is_good(self) -> bool:
        return not self.missing and not self.corrupt


def waiting_files(spool: Path) -> list[Path]:
    """Return the spool's files that are to be replayed."""
    return [*spool.glob(APPENDED), *spool.glob(f"{REPLAYED}*")]


def check(database: Path, spool: Path, acknowledged: Collection[Acknowledged]) -> Finding:
    """Tell what is corrupt. If nothing is, wait until the spool is replayed, and look for what was acknowledged."""
    try:
        # Only read: the recorder does not see changes by this process.
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as ledger:
            (verdict,) = ledger.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict == "ok":
                with contextlib.suppress(TimeoutError):  # what has not left the spool is missing
                    wait_until(lambda: not waiting_files(spool), _REPLAYED_WITHIN_SECONDS, every=0.01)
            return Finding(_missing(ledger, acknowledged), "" if verdict == "ok" else verdict)
    except sqlite3.Error as problem:
        return Finding(len(acknowledged), str(problem))


def _missing(ledger: sqlite3.Connection, acknowledged: Collection[Acknowledged]) -> int:
    digests = {digest for (digest,) in ledger.execute("SELECT digest FROM delivery")}
    succeeded = {task_id for (task_id,) in ledger.execute("SELECT id FROM task WHERE status = 'succeeded'")}
    kept = [
        each
        for each in acknowledged
        if each.digest in digests and (each.task_id is None or each.task_id in succeeded)
    ]
    return len(acknowledged) - len(kept)
