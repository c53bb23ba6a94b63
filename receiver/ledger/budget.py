"""A token bucket that limits how many bytes are stored in a span of time."""

import threading
import time
from collections.abc import Callable


class ByteBudget:
    """Allows bursts of `most` bytes. Refills at `most` bytes in `within` seconds."""

    def __init__(self, most: int, within: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._within = within
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._left = float(most)
        self._filled_at = monotonic()

    def release(self, size: int) -> None:
        """Give back bytes that were taken and not stored."""
        with self._lock:
            self._left = min(self._left + size, self._most)

    def take(self, size: int) -> bool:
        """Take `size` bytes and return True; take none and return False when fewer are left."""
        with self._lock:
            now = self._monotonic()
            refilled = self._left + self._most * (now - self._filled_at) / self._within
            self._left, self._filled_at = min(refilled, self._most), now
            if size > self._left:
                return False
            self._left -= size
            return True
