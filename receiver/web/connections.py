"""Limits a worker's connections, so that idle or slow clients cannot keep callbacks out.

Anybody can open connections and send nothing, or half of a request's head. When there are too many
connections, the worker closes those that have waited longest. It also closes a connection whose client does
not read the answer in time.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

# Spare new connections for so long: their request may be on its way.
SPARED_SECONDS = 0.5


class Connections:
    """Keeps at most `most` connections open, by closing those that wait for a request."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        self._waiting: dict[socket.socket, float] = {}  # since when (monotonic), the oldest first
        self._serving: dict[socket.socket, float] = {}  # until when (monotonic)

    @contextmanager
    def open(self, connection: socket.socket) -> Iterator[None]:
        """Count a connection as open. It is waiting until its first request."""
        if self._open >= self._most:
            self.end_waiting(1)
        self._open += 1
        self._waiting[connection] = time.monotonic()
        try:
            yield
        finally:
            self._open -= 1
            self._waiting.pop(connection, None)

    @contextmanager
    def serving(self, connection: socket.socket, within: float) -> Iterator[None]:
        """Mark a connection as serving a request, for at most `within` seconds. It then waits again."""
        self._waiting.pop(connection, None)
        self._serving[connection] = time.monotonic() + within
        try:
            yield
        finally:
            del self._serving[connection]
            self._waiting[connection] = time.monotonic()

    def extend(self, connection: socket.socket, within: float) -> None:
        """Let the request that a connection serves take at most `within` seconds from now."""
        if connection in self._serving:
            self._serving[connection] = time.monotonic() + within

    def end_overdue(self) -> None:
        """Shut down connections that have been served for too long. Sending to them raises OSError."""
        # One check of all connections, as a timer for each request would slow every callback.
        now = time.monotonic()
        for connection in [connection for connection, until in self._serving.items() if until < now]:
            _shut(connection, socket.SHUT_RDWR)

    def end_surplus(self) -> None:
        """Close waiting connections until no more than `most` are open."""
        self.end_waiting(max(self._open - self._most, 0))

    def end_waiting(self, most: int | None = None) -> None:
        """Close up to `most` connections that have waited and sent nothing, the oldest first."""
        before = time.monotonic() - SPARED_SECONDS
        long = [connection for connection, since in self._waiting.items() if since <= before]
        idle = (connection for connection in long if _nothing_has_come(connection))
        for connection in islice(idle, most):
            del self._waiting[connection]
            end_reading(connection)


def end_reading(connection: socket.socket) -> None:
    """Make reads from a connection return its end. An answer can still be sent."""
    _shut(connection, socket.SHUT_RD)


def is_gone(connection: socket.socket) -> bool:
    """Tell whether the client has closed its connection."""
    try:
        return _plain(connection).recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _shut(connection: socket.socket, how: int) -> None:
    # Shut down the plain socket: gevent's own shutdown raises in the reader, which then loses its data.
    with contextlib.suppress(OSError):
        _plain(connection).shutdown(how)


def _nothing_has_come(connection: socket.socket) -> bool:
    try:
        _plain(connection).recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _plain(connection: socket.socket) -> socket.socket:
    plain: socket.socket = getattr(connection, "_sock", connection)
    return plain
