"""Connections to PostgreSQL that do not wait for ever for a server that hangs.

The server's own time-outs do not help when the server is stopped or the network drops packets.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from peewee import Psycopg3Adapter
from psycopg.errors import _WaitTimeout


class BoundedConnection(psycopg.Connection[Any]):
    """Waits `answer_within` seconds for an answer, then closes itself and raises OperationalError.

    With None it waits without a limit. It remembers the SQLSTATE of PostgreSQL's last error.
    """

    answer_within: float | None = None
    is_pooled = False  # behind a pooler, where each transaction may run in another session
    is_at_once = False  # taken for a callback, which cannot wait; see `PooledPostgresql`
    opened_at = 0.0  # monotonic
    last_sqlstate: str | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one of psycopg's wait generators, with our limit unless the call has its own."""
        kwargs.setdefault("timeout", self.answer_within)
        try:
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


@contextmanager
def waiting_at_most(connection: BoundedConnection, seconds: float | None) -> Iterator[None]:
    """Change a connection's `answer_within` for the block; None means no limit."""
    usual, connection.answer_within = connection.answer_within, seconds
    try:
        yield
    finally:
        connection.answer_within = usual
