"""How people say since when: 90m, 2h, 3d, or a moment in ISO 8601. Pure."""

import re
from datetime import datetime, timedelta

from receiver.ledger.clock import from_iso

_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_OLDEST = datetime(2000, 1, 1)


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment, in UTC. Raises ValueError with a message for people."""
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
