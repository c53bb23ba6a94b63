"""The gunicorn worker. It reserves capacity for callbacks, and no client can block it.

Relayed requests may last longer (`lasting`). Other limits are elsewhere: gunicorn's `keepalive` limits the
time for a request's head, `stalls` the time for its body. Idle connections make room for new ones
(`connections`).

See "Processes" in docs/design.md.
"""

import contextlib
import errno
import logging
import math
import os
import socket
import time
from contextlib import nullcontext
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import gevent
from gunicorn.workers.ggevent import GeventWorker

from receiver.config import Settings
from receiver.web.background import Background, StartScheduler
from receiver.web.closing import until_all_are_accepted
from receiver.web.connections import Connections
from receiver.web.joined import JoinedSends, joined
from receiver.web.lasting import lasting_of
from receiver.web.refused import Board

# More than a callback may wait in total: for its body (8 s), the database (10 s) and the spool (8 s).
ANSWER_WITHIN_SECONDS = 40.0
# A client that acknowledges nothing for so long is gone, and data sent to it can be dropped.
_UNACKNOWLEDGED_MS = 15_000
# Exports of the whole ledger may take long. The limit applies to each part that is sent.
_STREAMED = ("/tasks.csv", "/tasks.jsonl")
_CALLBACKS, _HEALTH = "/callbacks/", "/healthz"
_FOR_HEALTH = 20  # reserved for health checks: a platform restarts a machine that does not answer them
_FULL_WITHIN_SECONDS = 1.0
_WITHOUT_TURNS, _TURN_SECONDS = 20, 0.005
_LOG_EVERY_SECONDS = 60.0
_FULL_BODY = b'{"error":{"code":"busy","message":"Too many requests are in progress."}}\n'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_FULL_BODY), _FULL_BODY)
)


class BoundedWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no type hints
    """A gevent worker that ends slow requests, and limits how many requests other than callbacks run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # At worker_connections gevent stops accepting. Keep an eighth free, so that a new connection can
        # replace one that waits.
        self._connections = Connections(self.worker_connections * 7 // 8)
        self._most_others = self.worker_connections * 3 // 4
        self._logged_full_at = -_LOG_EVERY_SECONDS
        self._others = 0  # requests in progress that are no callbacks
        self.board: Board | None = None  # shared by all workers of the server
        self._background: Background | None = None

    def start_background(self, settings: Settings, start_scheduler: StartScheduler | None) -> None:
        """Start the background threads: here in the worker, as threads do not survive a fork."""
        lasting_of(self.wsgi).connections = self._connections
        self._background = Background(self.wsgi, settings, start_scheduler)
        self._background.start(self.board or Board(1))

    def stop_background(self) -> None:
        """Stop the background threads if this process started them. That ends a worker that has served."""
        if self._background and self.pid == os.getpid():
            self._background.stop()
            if self.booted:
                logging.shutdown()
                # Not sys.exit(): a call to upstream that still hangs would keep the process from ending.
                os._exit(0)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        """Serve a connection until it ends."""
        client = joined(client)
        with self._connections.open(client):
            super().handle(listener, client, addr)

    def notify(self) -> None:
        """Send the heartbeat, each second, and close connections that wait or take too long."""
        self.tmp.notify()
        if self.alive and self.ppid != os.getppid():
            self.log.info("The master is gone: the worker ends when its requests are finished.")
            self.alive: bool = False
        self._connections.end_overdue()
        if self.alive:
            self._connections.end_surplus()
        else:
            self._connections.end_waiting()
            if self._background:
                self._background.begin_to_stop()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End after SIGTERM, once those are accepted that have connected already."""
        gevent.spawn(self._end, sig, frame)

    def _end(self, sig: int, frame: Any) -> None:
        try:
            until_all_are_accepted(self.sockets)
        finally:
            super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """Finish the requests in progress after SIGINT and SIGQUIT too; gunicorn would drop them."""
        self.handle_exit(sig, frame)

    def handle_request(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        """Answer one request. Raises OSError when the client does not read the answer in time."""
        is_streamed = req.path in _STREAMED
        with self._connections.serving(sock, math.inf if is_streamed else ANSWER_WITHIN_SECONDS):
            sock.settimeout(ANSWER_WITHIN_SECONDS if is_streamed else None)
            self._answer_or_turn_away(listener_name, req, sock, addr)

    def _answer_or_turn_away(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        if self._is_callback(req.path):
            self._answer(listener_name, req, sock, addr)
            return
        if self._others >= self._most_others + _FOR_HEALTH * (req.path == _HEALTH):
            self._log_full()
            sock.settimeout(_FULL_WITHIN_SECONDS)
            with contextlib.suppress(OSError):
                sock.sendall(_FULL)
            raise _client_gone()
        self._others += 1
        try:
            self._answer(listener_name, req, sock, addr)
            # Back-pressure: the more requests are in progress, the later a connection's next one is read.
            idle = (
                self.wsgi.extensions["backstop_waiting"].count
                + self.wsgi.extensions["backstop_lasting"].count
            )
            busy = self._others - idle
            gevent.sleep(_TURN_SECONDS * max(busy - _WITHOUT_TURNS, 0))
        finally:
            self._others -= 1

    def _log_full(self) -> None:
        now = time.monotonic()
        if now - self._logged_full_at >= _LOG_EVERY_SECONDS:
            self._logged_full_at = now
            text = "Pages and the API answer 503: %d requests are in progress. Callbacks are still received."
            self.log.warning(text, self._others)

    @cached_property
    def _tokens(self) -> frozenset[str]:
        return frozenset(self.wsgi.extensions["backstop"].callback_tokens)

    def _is_callback(self, path: str) -> bool:
        # Only with our token: anybody can send requests to this path.
        path = "/" + unquote(path).lstrip("/")
        return path.startswith(_CALLBACKS) and path.split("/", 3)[2] in self._tokens

    def _answer(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> None:
        try:
            with sock.answering() if isinstance(sock, JoinedSends) else nullcontext():
                super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:  # of the socket, or TCP_USER_TIMEOUT
            raise _client_gone() from None


def end_silent_readers(listener: socket.socket) -> None:
    """Let the system close accepted connections whose peer acknowledges nothing. Only Linux can do that."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and listener.family in {socket.AF_INET, socket.AF_INET6}:
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.IPPROTO_TCP, option, _UNACKNOWLEDGED_MS)


def _client_gone() -> ConnectionResetError:
    # On this error gunicorn closes the connection without a log line.
    return ConnectionResetError(errno.ECONNRESET, "the client does not read its answer")
