"""Requests that may last for minutes: relayed ones. They are bounded, so that others keep their room.

The worker ends other requests after some seconds. It lets these last, and counts them apart.
"""

import socket
from collections.abc import Callable

from flask import Flask, current_app, request

from receiver.upstream.relay import ANSWER_WITHIN_SECONDS
from receiver.web.connections import Connections

# Of the requests that a worker serves beside callbacks (worker.py).
MOST_LASTING = 200
_LAST_SECONDS = ANSWER_WITHIN_SECONDS + 60
_SEND_WITHIN_SECONDS = 40.0  # for each part of an answer that the client must read


class Busy(Exception):
    """As many requests as may last are in progress."""


class Lasting:
    """The requests of this process that may last. The worker sets `connections`; other servers have none."""

    def __init__(self, most: int = MOST_LASTING) -> None:
        self._most = most
        self.count = 0
        self.connections: Connections | None = None

    def begin(self) -> Callable[[], None]:
        """Let the current request last. Returns what to call at its end. Raises Busy."""
        if self.count >= self._most:
            raise Busy
        self.count += 1
        connection: socket.socket | None = request.environ.get("gunicorn.socket")
        if connection is not None and self.connections is not None:
            self.connections.extend(connection, _LAST_SECONDS)
            connection.settimeout(_SEND_WITHIN_SECONDS)
        return _Once(self._end)

    def prolong(self) -> Callable[[], None]:
        """Hold the current request's place beyond its answer. Returns what to call at the end."""
        self.count += 1
        return _Once(self._end)

    def _end(self) -> None:
        self.count -= 1


class _Once:
    def __init__(self, call: Callable[[], None]) -> None:
        self._calls = [call]

    def __call__(self) -> None:
        while self._calls:
            self._calls.pop()()


def current_lasting() -> Lasting:
    """Return the lasting requests of the application that serves the current request."""
    return lasting_of(current_app)


def lasting_of(app: Flask) -> Lasting:
    """Return the lasting requests of an application."""
    lasting: Lasting = app.extensions["backstop_lasting"]
    return lasting
