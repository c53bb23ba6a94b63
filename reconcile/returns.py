"""After the receiver was away: ask at once about what may have finished meanwhile, and discover."""

import logging
import math
from datetime import timedelta

from receiver.clock import Clock
from receiver.ledger import returns

log = logging.getLogger(__name__)

# A receiver that starts again and again must not use up the calls.
AT_MOST_EVERY = timedelta(minutes=1)
MOST_TASKS = 500  # ten calls


class ReturnsFollower:
    """Looks for returns of the receiver that nobody has followed. One thread at a time may use it.

    A discovery that is complete follows a return. Until there is one, the return is followed again every
    AT_MOST_EVERY: upstream may not answer now. Without discovery, the look-ups alone follow it.
    """

    def __init__(self, clock: Clock, is_discovered: bool) -> None:
        self._clock = clock
        self._is_discovered = is_discovered
        self._followed_at = -math.inf  # monotonic
        self._asked_for = 0  # returns

    def look(self) -> bool:
        """Make open tasks due that may have finished meanwhile. Returns whether to reconcile and discover."""
        if self._clock.monotonic() - self._followed_at < AT_MOST_EVERY.total_seconds():
            return False
        returned = returns.unfollowed()
        if returned is None:
            return False
        self._followed_at = self._clock.monotonic()
        if returned != self._asked_for:
            asked = returns.ask_early(self._clock.now(), MOST_TASKS)
            self._asked_for = returned
            log.info("Asking about what may have been missed: %d open tasks are due at once.", asked)
        if not self._is_discovered:
            returns.note_followed(returned)
        return True
