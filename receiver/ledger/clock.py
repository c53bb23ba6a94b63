"""The one clock, and the one way in which moments are held."""

from datetime import UTC, datetime, timedelta

# The clocks of two machines differ by less. A past event that is further ahead was dated by a wrong clock.
SKEW = timedelta(minutes=1)
_FIRST, _LAST = 0, 4102444800  # 1970 to 2100: outside of it a number is no time of a task


def utcnow() -> datetime:
    """Return the present moment in UTC, without a zone: the databases hold UTC and nothing else."""
    return datetime.now(UTC).replace(tzinfo=None)


def from_unix(seconds: object) -> datetime | None:
    """Return the UTC moment of a Unix time in seconds; None for anything that is not one."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not _FIRST < seconds < _LAST:
        return None
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def to_unix(moment: datetime) -> float:
    """Return a moment as a Unix time in seconds."""
    return moment.replace(tzinfo=UTC).timestamp()


def from_iso(text: str) -> datetime:
    """Return the UTC moment of an ISO 8601 text, taken as UTC where it names no zone. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def to_iso(moment: datetime | None) -> str | None:
    """Return a moment as ISO 8601 UTC text, such as 2026-01-31T12:00:00.250000Z."""
    return None if moment is None else moment.isoformat() + "Z"
