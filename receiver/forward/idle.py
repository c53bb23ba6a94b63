"""Keeps connections open for the next request to the same server."""

import threading
import time
from collections.abc import Hashable

from receiver.forward.wire import Wire

_KEPT_FOR_SECONDS = 30.0  # below what firewalls and balancers remember


class IdleConnections:
    """Up to `most` connections that nobody uses at the moment."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: list[tuple[Hashable, Wire, float]] = []  # the oldest first

    def take(self, server: Hashable) -> Wire | None:
        """Return a connection to a server that still is open, as far as can be seen."""
        while (wire := self._pop(server)) is not None:
            if wire.is_silent():
                return wire
            wire.close()
        return None

    def put(self, server: Hashable, wire: Wire) -> None:
        """Keep a connection, and close those that have waited too long or are too many."""
        now = time.monotonic()
        with self._lock:
            self._kept.append((server, wire, now))
            expired = sum(since < now - _KEPT_FOR_SECONDS for _, _, since in self._kept)
            surplus = max(expired, len(self._kept) - self._most)
            ended, self._kept = self._kept[:surplus], self._kept[surplus:]
        for _, old, _ in ended:
            old.close()

    def close(self) -> None:
        """Close all that nobody uses, and from now on each that comes back."""
        with self._lock:
            self._most = 0
            ended, self._kept = self._kept, []
        for _, wire, _ in ended:
            wire.close()

    def _pop(self, server: Hashable) -> Wire | None:
        oldest = time.monotonic() - _KEPT_FOR_SECONDS
        with self._lock:
            for position in reversed(range(len(self._kept))):
                kept_for, wire, since = self._kept[position]
                if since < oldest:
                    return None
                if kept_for == server:
                    del self._kept[position]
                    return wire
        return None
