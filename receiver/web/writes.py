"""Whether callbacks can be kept now: tries a write, at most every few seconds and never for long.

What became of real callbacks counts more: one that was lost since the last trial says that they are refused.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from receiver.clock import utcnow
from receiver.ledger import refusals
from receiver.ledger.engine.errors import describe
from receiver.ledger.refusals import Refused
from receiver.native import NativeThreads
from receiver.spool.spool import Spool

TRY_EVERY_SECONDS = 5.0
_WITHIN_SECONDS = 2.0
KEPT, SPOOLED, REFUSED = "kept", "spooled", "refused"
_SPOOL_SAID = "; the spool: "
_threads = NativeThreads(1)  # a disk that hangs must stop no greenlet but the one that asks


@dataclass(frozen=True, slots=True)
class Writes:
    """What keeps the database and the spool from taking a callback; None where nothing does."""

    database: str | None = None
    spool: str | None = None
    since: datetime | None = None  # when the database was first found to take no writes
    spool_since: datetime | None = None  # when the spool was
    tried_at: datetime | None = None
    hangs: bool = False  # the database has not answered at all

    @property
    def callbacks(self) -> str:
        """Return what becomes of a callback now: `kept`, `spooled` or `refused`."""
        if self.database is None:
            return KEPT
        return SPOOLED if self.spool is None else REFUSED

    @property
    def refused_since(self) -> datetime | None:
        """Return since when neither takes a callback."""
        if self.since is None or self.spool_since is None:
            return None
        return max(self.since, self.spool_since)

    def corrected(self, lost: Refused | None, waiting: Refused | None) -> "Writes":
        """Return what is the case in view of the callbacks that were lost.

        `lost` are those of the last day, `waiting` those of them that no process could write down yet.
        """
        known = self
        if lost and self.callbacks != REFUSED and (self.tried_at is None or lost.last_at > self.tried_at):
            database, _, spool = (lost.reason or "").partition(_SPOOL_SAID)
            known = replace(
                self,
                database=self.database or database or "it took no callback",
                spool=self.spool or spool or "it took no callback",
                since=self.since or lost.last_at,
                spool_since=self.spool_since or lost.last_at,
            )
        since = known.refused_since
        if since is None or waiting is None or waiting.first_at > since:
            return known
        return replace(known, since=waiting.first_at, spool_since=waiting.first_at)

    def without_database(self, problem: str, now: datetime) -> "Writes":
        """Return what is the case when the database cannot even be read."""
        return replace(self, database=self.database or problem, since=self.since or now)


class WriteTrial:
    """Tries writes when asked, one at a time, and remembers what came of the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._tried_at = -TRY_EVERY_SECONDS  # monotonic
        self._last = Writes()

    @property
    def last(self) -> Writes:
        """Return what came of the last trial, without another."""
        return self._last

    def writes(self, spool: Spool) -> Writes:
        """Return whether writes work, as of some seconds ago at most. It takes 2 s at most."""
        with self._lock:
            if self._running is None and time.monotonic() - self._tried_at >= TRY_EVERY_SECONDS:
                self._running = threading.Thread(target=self._try, args=(spool,), daemon=True)
                self._running.start()
            running = self._running
        if running is not None and not self._last.hangs:  # that it hangs was waited for already
            running.join(_WITHIN_SECONDS)
            if running.is_alive():
                why = f"it does not answer within {_WITHIN_SECONDS:g} s"
                self._note(why, self._last.spool, utcnow(), hangs=True)
        return self._last

    def _try(self, spool: Spool) -> None:
        tried_at = utcnow()
        try:
            full = _problem_of(lambda: _threads.run(spool.try_a_write))
            self._note(_problem_of(lambda: refusals.try_a_write(tried_at)), full, tried_at)
        finally:
            self._tried_at = time.monotonic()
            self._running = None

    def _note(self, database: str | None, spool: str | None, tried_at: datetime, hangs: bool = False) -> None:
        since = None if database is None else self._last.since or tried_at
        spool_since = None if spool is None else self._last.spool_since or tried_at
        self._last = Writes(database, spool, since, spool_since, tried_at, hangs)


def why_lost(database: Exception, spool: Exception) -> str:
    """Return why neither took a callback, in one line that `Writes.corrected` understands."""
    return f"{describe(database)}{_SPOOL_SAID}{describe(spool)}"


def _problem_of(write: Callable[[], None]) -> str | None:
    try:
        write()
    except Exception as problem:  # noqa: BLE001 - whatever it is, it would keep a callback out too
        return describe(problem)
    return None
