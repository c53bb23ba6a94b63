"""How many calls a second go to upstream: one limit for a process, whatever its threads call for."""

import threading

from receiver.clock import Clock

SEE_STOP_WITHIN_SECONDS = 0.25


class RateLimiter:
    """Lets through at most `rate` calls a second, evenly spread; 0 is no limit."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._clock = clock
        self._next_at = 0.0  # monotonic
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take the next place, if its time has come."""
        now = self._clock.monotonic()
        with self._lock:
            if now < self._next_at:
                return False
            self._next_at = now + self._interval
            return True

    def put_back(self) -> None:
        """Return the place that was taken last: no call was made."""
        with self._lock:
            self._next_at -= self._interval

    def seconds_left(self) -> float:
        """Return how long to wait for the next place, in portions short enough to notice a stop."""
        return min(max(self._next_at - self._clock.monotonic(), 0.01), SEE_STOP_WITHIN_SECONDS)
