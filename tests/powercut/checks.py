"""What must be true of a disk after a power failure, once Backstop has started on it."""

import contextlib
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from receiver.spool.files import APPENDED, REPLAYED
from tests.powercut.traffic import Acknowledged
from tests.processes import wait_until

_REPLAYED_WITHIN_SECONDS = 15


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
    """Wait until the spool is replayed, and look for what was acknowledged."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not waiting_files(spool), _REPLAYED_WITHIN_SECONDS, every=0.01)
    try:
        # Not closed by `with`; and read-only, as a change would not be recorded.
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as ledger:
            return _look(ledger, acknowledged)
    except sqlite3.Error as problem:
        return Finding(len(acknowledged), str(problem))


def _look(ledger: sqlite3.Connection, acknowledged: Collection[Acknowledged]) -> Finding:
    (verdict,) = ledger.execute("PRAGMA integrity_check(1)").fetchone()
    digests = {digest for (digest,) in ledger.execute("SELECT digest FROM delivery")}
    succeeded = {task_id for (task_id,) in ledger.execute("SELECT id FROM task WHERE status = 'succeeded'")}
    missing = [
        each
        for each in acknowledged
        if each.digest not in digests or (each.task_id and each.task_id not in succeeded)
    ]
    return Finding(len(missing), "" if verdict == "ok" else verdict)
