"""One call to upstream: whatever goes wrong in it concerns this call alone, and each page takes its place."""

import logging
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from receiver.upstream.client import UpstreamError
from reconcile.rate_limit import RateLimiter

log = logging.getLogger(__name__)


class Pages:
    """The pages of one look-up: each is a call to upstream, and waits for its place in the rate limit."""

    def __init__(self, limiter: RateLimiter, within: timedelta) -> None:
        self.asked = 1  # the first one's place is taken before
        self._limiter = limiter
        self._deadline = time.monotonic() + within.total_seconds()

    def take_place(self) -> None:
        """Wait for the next page's place. Raises UpstreamError when that takes too long."""
        while not self._limiter.take():
            if time.monotonic() > self._deadline:
                raise UpstreamError("RECONCILE_MAX_RATE left no time for its next page", permanent=False)
            time.sleep(self._limiter.seconds_left())
        self.asked += 1


def carefully(call: Callable[[], list[Any]]) -> list[Any]:
    """Make a call. Raises UpstreamError for whatever goes wrong, be it an error in our own code."""
    try:
        return call()
    except UpstreamError:
        raise
    except Exception as problem:  # noqa: BLE001 - logged, with its frames
        kind = type(problem).__name__
        # Without its message, which may hold a token: http.client quotes a header that it refuses.
        frames = "".join(traceback.format_tb(problem.__traceback__))
        log.error("A call to upstream ended with an unexpected %s:\n%s", kind, frames)
        raise UpstreamError(f"the call ended with an unexpected {kind}", permanent=False) from None
