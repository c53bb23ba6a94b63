"""The connections of one worker, and which of them wait for a request.

Anybody can open connections and send nothing, or half a head. When they become too many, each new one ends
the one that has waited longest, so that they keep out no callback.
"""

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice


class Connections:
    """Lets at most `most` connections be open, as long as some of them only wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0
        self._waiting: dict[socket.socket, None] = {}  # in the order in which they began to wait

    @contextmanager
    def open(self, connection: socket.socket) -> Iterator[None]:
        """Count a connection, which waits until it serves."""
        self._open += 1
        self._waiting[connection] = None
        try:
            if self._open > self._most:
                self.end_waiting(1)
            yield
        finally:
            self._open -= 1
            self._waiting.pop(connection, None)

    @contextmanager
    def serving(self, connection: socket.socket) -> Iterator[None]:
        """A connection that serves a request is never ended here."""
        self._waiting.pop(connection, None)
        try:
            yield
        finally:
            self._waiting[connection] = None

    def end_waiting(self, most: int | None = None) -> None:
        """End those that wait, the oldest first, unless something has just come from the client."""
        idle = (connection for connection in list(self._waiting) if _nothing_has_come(connection))
        for connection in islice(idle, most):
            del self._waiting[connection]
            end_reading(connection)


def end_reading(connection: socket.socket) -> None:
    """Let the reader of a connection see its end, so that it can still answer."""
    # Of the socket below gevent's, whose own shutdown raises an error in the reader: it loses what had come.
    with contextlib.suppress(OSError):
        _plain(connection).shutdown(socket.SHUT_RD)


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
