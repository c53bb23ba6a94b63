"""Whether callbacks can be kept now: tries a write, at most every few seconds and never for long."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from receiver.ledger import refusals
from receiver.ledger.clock import utcnow
from receiver.ledger.db import describe
from receiver.spool import Spool

TRY_EVERY_SECONDS = 5.0
_WITHIN_SECONDS = 3.0
KEPT, SPOOLED, REFUSED = "kept", "spooled", "refused"


@dataclass(frozen=True, slots=True)
class Writes:
    """What keeps the database and the spool from taking a callback; None where nothing does."""

    database: str | None = None
    spool: str | None = None
    since: datetime | None = None  # when the database was first found to take no writes

    @property
    def callbacks(self) -> str:
        """Return what becomes of a callback now: `kept`, `spooled` or `refused`."""
        if self.database is None:
            return KEPT
        return SPOOLED if self.spool is None else REFUSED


class WriteTrial:
    """Tries writes when asked, one at a time, and remembers what came of the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._tried_at = -TRY_EVERY_SECONDS  # monotonic
        self._last = Writes()

    def writes(self, spool: Spool) -> Writes:
        """Return whether writes work, as of some seconds ago at most. It takes no longer than that."""
        with self._lock:
            if self._running is None and time.monotonic() - self._tried_at >= TRY_EVERY_SECONDS:
                self._running = threading.Thread(target=self._try, args=(spool,), daemon=True)
                self._running.start()
            running = self._running
        if running is not None:
            running.join(_WITHIN_SECONDS)
            if running.is_alive():
                return self._noted(f"it does not answer within {_WITHIN_SECONDS:g} s", self._last.spool)
        return self._last

    def _try(self, spool: Spool) -> None:
        try:
            full = _problem_of(spool.try_a_write)
            self._noted(_problem_of(lambda: refusals.try_a_write(utcnow())), full)
        finally:
            self._tried_at = time.monotonic()
            self._running = None

    def _noted(self, database: str | None, spool: str | None) -> Writes:
        since = None if database is None else self._last.since or utcnow()
        self._last = Writes(database, spool, since)
        return self._last


def _problem_of(write: Callable[[], None]) -> str | None:
    try:
        write()
    except Exception as problem:  # noqa: BLE001 - whatever it is, it would keep a callback out too
        return describe(problem)
    return None


trial = WriteTrial()
