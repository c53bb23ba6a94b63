"""Connections that send the head of an answer together with the beginning of its body.

gunicorn sends the two apart. Together they cost one call of the system and one packet.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent.socket


class JoinedSends(gevent.socket.socket):  # type: ignore[misc]  # gevent has no type hints
    """A client's connection. While it answers a request, it keeps back what is sent first."""

    _first: bytes | None = None  # what is kept back; b"" while there is nothing yet

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Join what is sent first in the block with what is sent next. At the end all is sent."""
        self._first = b""
        try:
            yield
        finally:
            first, self._first = self._first, None
            if first:
                self.sendall(first)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of the data. Raises OSError."""
        if self._first == b"":
            self._first = bytes(data)
            return
        if self._first:
            data, self._first = self._first + bytes(data), None
        # Nearly always one call sends all. gevent's own way asks for the size of the buffer before.
        sent = self.send(data, flags)
        if sent < len(data):
            super().sendall(memoryview(data)[sent:], flags)

    def send(self, data: Any, flags: int = 0, **timeout: float | None) -> int:
        """Send some of the data, after what is kept back. Files are sent by this. Raises OSError.

        gevent's own `sendall` calls this, and names a `timeout` where the connection has one.
        """
        if self._first:
            first, self._first = self._first, None
            super().sendall(first)
        return int(super().send(data, flags, **timeout))


def joined(client: socket.socket) -> socket.socket:
    """Return a plain connection as one that joins what it sends; one with TLS as it is."""
    if type(client) is not gevent.socket.socket:
        return client
    return JoinedSends(client.family, client.type, client.proto, fileno=client.detach())
