"""Ends the requests of clients that have stopped in the middle of a body.

The server reads bodies without a time-out, so that such clients would pile up for ever. A time-out of the
socket would not help against one that sends a byte now and then; therefore one thread of the process looks
after all bodies that are being read, and ends the reading of those that take too long.
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
    """Ends the reading of bodies that take longer than READ_WITHIN_SECONDS."""

    def __init__(self) -> None:
        self._deadlines: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Guard the reading of the present request's body: when it takes too long, that is its end."""
        connection: socket.socket | None = request.environ.get("gunicorn.socket")
        if connection is None:  # another server
            yield
            return
        if self._thread is None:  # not before: a thread does not survive the server's fork
            self._start()
        # Without a lock, as each step of it is one of the dictionary's: a lock would cost every callback.
        self._deadlines[connection] = time.monotonic() + READ_WITHIN_SECONDS
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
