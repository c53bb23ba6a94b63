"""A token bucket that limits how much may come in a span of time: rows, bytes or requests."""

import threading
import time
from collections.abc import Callable


class Budget:
    """Allows bursts of `most`. Refills at `most` in `within` seconds."""

    def __init__(self, most: int, within: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._within = within
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left = float(most)
        self._filled_at = monotonic()

    def release(self, amount: int) -> None:
        """Give back what was taken and not used."""
        with self._lock:
            self._left = min(self._left + amount, self._most)

    def take(self, amount: int) -> bool:
        """Take `amount` and return True; take nothing and return False when less is left."""
        with self._lock:
            now = self._monotonic()
            refilled = self._left + self._most * (now - self._filled_at) / self._within
            self._left, self._filled_at = min(refilled, self._most), now
            if amount > self._left:
                return False
            self._left -= amount
            return True
