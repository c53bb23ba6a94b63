"""Reads the header Retry-After."""

from datetime import datetime, timedelta

import urllib3

from receiver.clock import utcnow

_LONGEST_DATE = len("Wednesday, 31-Dec-2099 23:59:59 GMT")
_PARSER = urllib3.Retry(retry_after_max=10**12)  # no bound: callers have one of their own


def parse_retry_after(text: str | None) -> timedelta | None:
    """Return how long to wait, from seconds or an HTTP date; None where it is missing or senseless."""
    # Longer than any date of HTTP's: urllib3 takes a zone of any size.
    if text is None or len(text) > _LONGEST_DATE:
        return None
    if text.strip().isdigit():
        text = text.strip()[:9]  # of seconds: more than any wait lasts
    try:
        wait = timedelta(seconds=_PARSER.parse_retry_after(text))
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):  # neither, or out of all bounds
        return None
    return wait if wait < datetime.max - utcnow() else None
