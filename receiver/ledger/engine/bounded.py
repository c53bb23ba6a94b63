"""Connections to PostgreSQL that do not wait for ever for a server that hangs.

The server's own time-outs do not help when it is stopped, or when the network between swallows what is sent.
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

    None: it waits as long as it takes. It remembers what PostgreSQL complained of last.
    """

    answer_within: float | None = None
    is_pooled = False  # whether each transaction may have another session of the server
    is_at_once = False  # whether it was taken for what cannot wait; see `PooledPostgresql`
    opened_at = 0.0  # monotonic
    last_sqlstate: str | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for what psycopg does on the connection."""
        kwargs.setdefault("timeout", self.answer_within)
        try:
            return super().wait(gen, *args, **kwargs)
        except _WaitTimeout:
            # The answer may still come: nobody may take it for that of another statement.
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"the database did not answer within {kwargs['timeout']:g} s"
            ) from None
        except psycopg.Error as problem:
            self.last_sqlstate = problem.sqlstate
            raise


class BoundedAdapter(Psycopg3Adapter):
    """Makes peewee open such connections: `answer_within` is one more parameter of the connection."""

    def connect(self, db: Any, *, answer_within: float | None = None, **params: Any) -> BoundedConnection:
        """Connect, which has a bound of its own (`connect_timeout`)."""
        connection = BoundedConnection.connect(**{"dbname": db.database, **params})
        connection.answer_within = answer_within
        connection.opened_at = time.monotonic()
        return connection


@contextmanager
def waiting_at_most(connection: BoundedConnection, seconds: float | None) -> Iterator[None]:
    """Let a connection wait for another time within the block; None: as long as it takes."""
    usual, connection.answer_within = connection.answer_within, seconds
    try:
        yield
    finally:
        connection.answer_within = usual
