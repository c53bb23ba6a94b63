"""Connections to PostgreSQL that do not wait for ever for a server that hangs.

The server's own time-outs do not help when the server is stopped or the network drops packets.
"""

import math
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from gevent import monkey
from gevent.socket import wait_read, wait_readwrite, wait_write
from peewee import Psycopg3Adapter
from psycopg.errors import _WaitTimeout
from psycopg.waiting import Wait

_poll = monkey.get_original("select", "poll")  # gevent's own would yield
_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
_WAITS = {Wait.R: wait_read, Wait.W: wait_write, Wait.RW: wait_readwrite}


class BoundedConnection(psycopg.Connection[Any]):
    """Waits `answer_within` seconds for an answer, then closes itself and raises OperationalError.

    With None it waits without a limit. It remembers the SQLSTATE of PostgreSQL's last error.
    """

    answer_within: float | None = None
    is_pooled = False  # behind a pooler, where each transaction may run in another session
    is_at_once = False  # taken for a callback, which cannot wait; see `PooledPostgresql`
    opened_at = 0.0  # monotonic
    used_at = 0.0  # monotonic; when it was given back to the pool
    last_sqlstate: str | None = None

    def has_news(self) -> bool:
        """Tell whether the server has sent something unasked, or ended the session. Does not wait."""
        return bool(_ready(self.pgconn.socket, Wait.R))

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one of psycopg's wait generators, with our limit unless the call has its own."""
        kwargs.setdefault("timeout", self.answer_within)
        try:
            if monkey.is_module_patched("select"):
                return _wait(gen, self.pgconn.socket, kwargs["timeout"])
            return super().wait(gen, *args, **kwargs)
        except _WaitTimeout:
            # Close it: a late answer must not be read as the answer to the next statement.
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the database did not answer within {kwargs['timeout']:g} s"
            ) from None
        except psycopg.Error as problem:
            self.last_sqlstate = problem.sqlstate
            raise


class BoundedAdapter(Psycopg3Adapter):
    """Makes peewee open bounded connections. They take one more parameter: `answer_within`."""

    def connect(self, db: Any, *, answer_within: float | None = None, **params: Any) -> BoundedConnection:
        """Open a connection. Connecting itself is bounded by `connect_timeout`."""
        connection = BoundedConnection.connect(**{"dbname": db.database, **params})
        connection.answer_within = answer_within
        connection.opened_at = time.monotonic()
        return connection


def _wait(gen: Any, socket: int, seconds: float | None) -> Any:
    """Run one of psycopg's wait generators. Raises _WaitTimeout.

    Other greenlets run only while nothing can be read or written. psycopg's own functions yield to them
    before each statement. In a busy process that takes longer than the server's answer.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = _ready(socket, wanted)
            if not ready:
                left = None if seconds is None else max(until - time.monotonic(), 0)
                _WAITS[wanted](socket, timeout=left, timeout_exc=_WaitTimeout("no answer"))
                ready = _ready(socket, wanted)
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value


def _ready(socket: int, wanted: Wait) -> int:
    """Return what can be done now of what is wanted, as psycopg's Wait. Does not wait."""
    watch = _poll()
    watch.register(socket, _EVENTS[wanted])
    happened = watch.poll(0)
    if not happened:
        return 0
    _, event = happened[0]
    if event & ~_EVENTS[Wait.RW]:
        return wanted  # it has ended: reading or writing tells why
    return (Wait.R if event & select.POLLIN else 0) | (Wait.W if event & select.POLLOUT else 0)


@contextmanager
def waiting_at_most(connection: BoundedConnection, seconds: float | None) -> Iterator[None]:
    """Change a connection's `answer_within` for the block; None means no limit."""
    usual, connection.answer_within = connection.answer_within, seconds
    try:
        yield
    finally:
        connection.answer_within = usual
