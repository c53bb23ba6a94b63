"""Ends requests whose bodies take too long to arrive.

The server reads bodies without a time-out, so stalled clients would accumulate. A socket time-out does not
help against a client that sends a byte now and then. So one thread watches all bodies that are being read,
and ends those that take too long.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from flask import request

from receiver.web.connections import end_reading

READ_WITHIN_SECONDS = 8.0
_LOOK_EVERY_SECONDS = 1.0


class StallGuard:
    """Ends the reading of bodies that take too long."""

    def __init__(self) -> None:
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def reading(self, within: float = READ_WITHIN_SECONDS) -> Iterator[None]:
        """Limit the seconds to read the current request's body, within the block. It then ends early."""
        connection: socket.socket | None = request.environ.get("gunicorn.socket")
        if connection is None:  # another server
            yield
            return
        if self._thread is None:  # no earlier, as a thread does not survive the server's fork
            self._start()
        # No lock, which would slow every callback: each access to the dictionary is atomic.
        self._deadlines[connection] = time.monotonic() + within
        try:
            yield
        finally:
            self._deadlines.pop(connection, None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_SECONDS)
            now = time.monotonic()
            for connection, deadline in list(self._deadlines.items()):
                if deadline < now and self._deadlines.pop(connection, None) is not None:
                    end_reading(connection)


stall_guard = StallGuard()
