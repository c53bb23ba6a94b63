"""Tells whether callbacks can be stored now. It tries a write every few seconds at most, with a time limit.

Real callbacks count more than the trial: if one was lost since the last trial, callbacks are refused.
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
_threads = NativeThreads(1)  # a disk that hangs must block no greenlet except the one that asks


@dataclass(frozen=True, slots=True)
class Writes:
    """Why the database and the spool cannot store a callback. None means that they can."""

    database: str | None = None
    spool: str | None = None
    since: datetime | None = None  # when a write to the database first failed
    spool_since: datetime | None = None  # when a write to the spool first failed
    tried_at: datetime | None = None
    hangs: bool = False  # the database has not answered at all

    @property
    def callbacks(self) -> str:
        """Return what happens to a callback now: `kept`, `spooled` or `refused`."""
        if self.database is None:
            return KEPT
        return SPOOLED if self.spool is None else REFUSED

    @property
    def refused_since(self) -> datetime | None:
        """Return since when callbacks are refused; None if they are not."""
        if self.since is None or self.spool_since is None:
            return None
        return max(self.since, self.spool_since)

    def corrected(self, lost: Refused | None, waiting: Refused | None) -> "Writes":
        """Return a copy that is corrected by the callbacks that were really lost.

        `lost` are those of the last day, `waiting` those among them that are not in the ledger yet.
        """
        known = self
        if lost and self.callbacks != REFUSED and (self.tried_at is None or lost.last_at > self.tried_at):
            database, _, spool = (lost.reason or "").partition(_SPOOL_SAID)
            known = replace(
                self,
                database=self.database or database or "it could not store a callback",
                spool=self.spool or spool or "it could not store a callback",
                since=self.since or lost.last_at,
                spool_since=self.spool_since or lost.last_at,
            )
        since = known.refused_since
        if since is None or waiting is None or waiting.first_at > since:
            return known
        return replace(known, since=waiting.first_at, spool_since=waiting.first_at)

    def without_database(self, problem: str, now: datetime) -> "Writes":
        """Return a copy for a database that cannot even be read."""
        return replace(self, database=self.database or problem, since=self.since or now)


class WriteTrial:
    """Tries writes on demand, one at a time, and remembers the last outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._tried_at = -TRY_EVERY_SECONDS  # monotonic
        self._last = Writes()

    @property
    def last(self) -> Writes:
        """Return the outcome of the last trial, without another trial."""
        return self._last

    def writes(self, spool: Spool) -> Writes:
        """Return whether writes work. The answer is at most some seconds old and takes 2 s at most."""
        with self._lock:
            if self._running is None and time.monotonic() - self._tried_at >= TRY_EVERY_SECONDS:
                self._running = threading.Thread(target=self._try, args=(spool,), daemon=True)
                self._running.start()
            running = self._running
        if running is not None and not self._last.hangs:  # do not wait again for a database that hangs
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
    """Return why a callback was lost, as one line that `Writes.corrected` can parse."""
    return f"{describe(database)}{_SPOOL_SAID}{describe(spool)}"


def _problem_of(write: Callable[[], None]) -> str | None:
    try:
        write()
    except Exception as problem:  # noqa: BLE001 - any error would lose a callback too
        return describe(problem)
    return None
