"""Compares our clock with upstream's. A run keeps the difference, and the log tells of a large one."""

import logging

from receiver.clock import WRONG_BEYOND
from receiver.upstream.client import Upstream
from reconcile.counts import Counts

log = logging.getLogger(__name__)

_MOST_AHEAD = 2**31 - 1  # seconds: the column holds no more


class WrongClock:
    """Tells the log once when the clock has become wrong."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._is_wrong = False

    def note(self, counts: Counts) -> None:
        """Note in a run's counts how far our clock is ahead, as far as upstream has told its time."""
        ahead = self._upstream.clock_ahead
        if ahead is None:
            return
        counts.clock_ahead = max(min(int(ahead.total_seconds()), _MOST_AHEAD), -_MOST_AHEAD)
        was_wrong, self._is_wrong = self._is_wrong, abs(ahead) > WRONG_BEYOND
        if self._is_wrong and not was_wrong:
            log.error(
                "This machine's clock is wrong: it differs from upstream's by %d s. Keep it right with NTP.",
                counts.clock_ahead,
            )
