"""The connections of one worker: which of them wait for a request, and which are being served.

Anybody can open connections and send nothing, or half a head. When they become too many, those that have
waited longest are ended, so that they keep out no callback. A client that does not take its answer in time
is ended too.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

# The request of a connection that has just been accepted may be on its way.
SPARED_SECONDS = 0.5


class Connections:
    """Lets at most `most` connections be open, as long as enough of them have waited for a while."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        # Since when, by the monotonic clock, and in that order.
        self._waiting: dict[socket.socket, float] = {}
        self._serving: dict[socket.socket, float] = {}  # until when

    @contextmanager
    def open(self, connection: socket.socket) -> Iterator[None]:
        """Count a connection, which waits until it serves."""
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
        """Spare a connection while it serves a request, `within` so many seconds."""
        self._waiting.pop(connection, None)
        self._serving[connection] = time.monotonic() + within
        try:
            yield
        finally:
            del self._serving[connection]
            self._waiting[connection] = time.monotonic()

    def end_overdue(self) -> None:
        """End those that have been served for too long: whoever sends to one of them gets an OSError."""
        # One look at all of them: a timer for each request would cost every callback.
        now = time.monotonic()
        for connection in [connection for connection, until in self._serving.items() if until < now]:
            _shut(connection, socket.SHUT_RDWR)

    def end_surplus(self) -> None:
        """End as many as there are too many."""
        self.end_waiting(max(self._open - self._most, 0))

    def end_waiting(self, most: int | None = None) -> None:
        """End those that have waited for a while and from which nothing has come, the oldest first."""
        before = time.monotonic() - SPARED_SECONDS
        long = [connection for connection, since in self._waiting.items() if since <= before]
        idle = (connection for connection in long if _nothing_has_come(connection))
        for connection in islice(idle, most):
            del self._waiting[connection]
            end_reading(connection)


def end_reading(connection: socket.socket) -> None:
    """Let the reader of a connection see its end, so that it can still answer."""
    _shut(connection, socket.SHUT_RD)


def _shut(connection: socket.socket, how: int) -> None:
    # Shut down the plain socket: gevent's own shutdown raises in the reader, which loses what it has read.
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
