"""The clocks, and conversions of times. All times are naive datetimes in UTC."""

import re
import time
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

# The clocks of two machines differ by less than this. A past event further in the future has a wrong time.
SKEW = timedelta(minutes=1)
# A clock that differs from upstream's by more than this is wrong.
WRONG_BEYOND = timedelta(minutes=5)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_OLDEST = datetime(2000, 1, 1)
_FIRST, _LAST = 0, 4102444800  # 1970 to 2100; a number outside is not a task's time


def utcnow() -> datetime:
    """Return the present time in UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


class Clock:
    """The machine's two clocks, and waiting. A simulation hands in a clock of its own instead."""

    def now(self) -> datetime:
        """Return the present moment in UTC by the wall clock, which people and time servers set."""
        return utcnow()

    def monotonic(self) -> float:
        """Return the seconds of the clock that nobody sets. Only differences mean something."""
        return time.monotonic()

    def wait(self, seconds: float, calls: Collection[Future[Any]] = ()) -> None:
        """Wait for so many seconds, or until one of the calls has ended."""
        if calls:
            wait(calls, seconds, FIRST_COMPLETED)
        else:
            time.sleep(seconds)


def from_unix(seconds: object) -> datetime | None:
    """Return a Unix time in seconds as a datetime; None for anything else."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not _FIRST < seconds < _LAST:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def to_unix(moment: datetime) -> float:
    """Return a datetime as a Unix time in seconds."""
    return moment.replace(tzinfo=UTC).timestamp()


def from_iso(text: str) -> datetime:
    """Return an ISO 8601 text as a datetime. A text without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def to_iso(moment: datetime | None) -> str | None:
    """Return a datetime as ISO 8601 text in UTC, such as 2026-01-31T12:00:00.250000Z."""
    return None if moment is None else moment.isoformat() + "Z"


def from_http_date(text: str | None) -> datetime | None:
    """Return the header Date of an answer as a datetime; None for anything else."""
    try:
        return from_iso(parsedate_to_datetime(text or "").isoformat())
    except (ValueError, OverflowError):
        return None


def parse_since(text: str, now: datetime) -> datetime:
    """Parse a start time as people type it: 90m, 2h or 3d ago, or ISO 8601.

    Raises ValueError with a message for people.
    """
    try:
        if span := re.fullmatch(r"([0-9]{1,6})([mhd])", text.strip()):
            moment = now - int(span[1]) * _UNITS[span[2]]
        else:
            moment = from_iso(text.strip())
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a time like 90m, 2h or 3d nor a moment like 2026-01-31T12:00:00Z"
        ) from None
    if not _OLDEST <= moment <= now:
        raise ValueError(f"{text!r} is not between the year 2000 and now")
    return moment
