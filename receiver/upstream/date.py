"""Compares this machine's clock with upstream's, by the header Date of its answers."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import urllib3

from receiver.clock import from_http_date, utcnow

_ASK_WITHIN_SECONDS = 10.0


def seconds_passed() -> float:
    """Return a count of seconds that nobody sets. On Linux it goes on while the machine is suspended."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def earlier_now(now: datetime, ahead: timedelta | None) -> datetime | None:
    """Return the time by our clock or by upstream's, whichever is earlier; None while theirs is unknown.

    What is deleted for its age must be old by both: a machine that has just started may not know the time.
    """
    return None if ahead is None else now - max(ahead, timedelta(0))


def later_now(now: datetime, ahead: timedelta | None) -> datetime | None:
    """Return the time by our clock or by upstream's, whichever is later; None while theirs is unknown.

    Only what is in the future by both has a wrong time: by a clock that is behind, everything is.
    """
    return None if ahead is None else now - min(ahead, timedelta(0))


def ask_date(base_url: str) -> str | None:
    """Ask a server for nothing but the header Date of its answer, whatever that is. None: there is none."""
    try:
        with urllib3.PoolManager(timeout=_ASK_WITHIN_SECONDS, retries=False) as pool:
            answer = pool.request("HEAD", base_url, redirect=False)
    except urllib3.exceptions.HTTPError:
        return None
    return answer.headers.get("Date")


class Comparison:
    """Remembers the newest answer's Date. Threads may share it."""

    def __init__(
        self, now: Callable[[], datetime] = utcnow, passed: Callable[[], float] = seconds_passed
    ) -> None:
        self._now = now
        self._passed = passed
        self._seen: tuple[datetime, float] | None = None

    def note(self, date: str | None) -> None:
        """Note an answer's Date when it has come. One that is missing or unreadable tells nothing."""
        if theirs := from_http_date(date):
            self._seen = theirs, self._passed()

    @property
    def ahead(self) -> timedelta | None:
        """How far our clock is ahead of upstream's now; negative if it is behind, None before any answer."""
        if self._seen is None:
            return None
        theirs, seen_at = self._seen
        # Once somebody has set the clock, this shows it at once, before the next answer.
        return self._now() - (theirs + timedelta(seconds=self._passed() - seen_at))
