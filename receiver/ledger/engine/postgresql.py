"""PostgreSQL: bounded connections, directly to the server or through a pooler."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import psycopg
from peewee import (  # type: ignore[attr-defined]  # the stubs leave the wrapper out
    OperationalError,
    PostgresqlDatabase,
    __exception_wrapper__,
)
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase
from psycopg.pq import PipelineStatus

from receiver.ledger.engine.bounded import BoundedAdapter, BoundedConnection, waiting_at_most

_REFUSE_AFTER_FAILURE_SECONDS = 2.0
_PING_WITHIN_SECONDS = 3.0
# A ping is a round trip, and all who want a connection wait for it. Without one we still notice a session
# that the server has ended.
_PING_AFTER_SECONDS = 1.0
# A demoted server becomes read-only and keeps its connections open. A server that shuts down says so. In both
# cases a new primary may answer under the same name or behind the same pooler.
DEMOTED = "25006"
LEAVING = {DEMOTED, "57P01", "57P02", "57P03", "57P04"}
# A prepared statement exists already, or does not exist: other clients use this session too.
_NOT_OUR_SESSION = {"42P05", "26000"}
# Limits for locks and for servers that hang. Only migrations take longer.
_BOUNDS = {
    # A role's or a database's default may be off, but an acknowledged delivery must be on disk.
    "synchronous_commit": "on",
    "lock_timeout": "3s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
}
# Our statements are written for READ COMMITTED. A role or a database may default to a stricter level, at
# which upserts fail under load.
_FOR_THE_SESSION = "; ".join(
    ["SET default_transaction_isolation TO 'read committed'"]
    + [f"SET {name} TO '{value}'" for name, value in _BOUNDS.items()]
)
# One string costs one round trip, the same as BEGIN alone.
_FOR_A_TRANSACTION = "; ".join(
    ["BEGIN ISOLATION LEVEL READ COMMITTED"]
    + [f"SET LOCAL {name} TO '{value}'" for name, value in _BOUNDS.items()]
)


@contextmanager
def _closing_on_failure(connection: BoundedConnection) -> Iterator[None]:
    try:
        yield
    except Exception:
        connection.close()
        raise


class _DurablePostgresql(PostgresqlDatabase):
    """Works also behind a pooler, which may run each transaction in another session.

    Each new connection detects a pooler by the process id of its session. The server reports it at connect
    and again when asked. A pooler has no session yet at connect, so it makes an id up, and the two differ.

    Behind a pooler we rely on no session state. No statement is prepared. Each transaction makes its own
    settings, and a single statement becomes a transaction. A direct connection makes the settings once, which
    saves each callback the time. A pooler in session mode is treated like one in transaction mode, as they
    look the same.

    A pooler might pass the real process id on. Then PostgreSQL reports prepared statements that are not ours.
    From there on this process treats all connections as pooled.
    """

    psycopg3_adapter = BoundedAdapter
    _refuses_until = 0.0
    _refuses_because = ""
    _is_surely_pooled = False

    def _connect(self) -> Any:
        # A circuit breaker. peewee connects one thread at a time, so with a dead server all threads would
        # queue up, each for a time-out of its own. After a failure all fail fast for a moment.
        if time.monotonic() < self._refuses_until:
            raise OperationalError(f"the database did not answer a moment ago{self._refuses_because}")
        try:
            connection = super()._connect()  # type: ignore[misc]  # not in the stubs
            with _closing_on_failure(connection):
                encoding = self._set_up(connection)
        except Exception as problem:
            self._refuse_for_a_moment(f": {problem}")
            raise
        if encoding != "UTF8":
            connection.close()
            raise OperationalError(
                f"the encoding of the PostgreSQL database is {encoding}, which cannot hold every callback."
                " Backstop needs UTF8: make another database with CREATE DATABASE ... ENCODING 'UTF8'"
                " TEMPLATE template0, and set DATABASE_URL to it"
            )
        return connection

    def _set_up(self, connection: BoundedConnection) -> str:
        """Detect a pooler, make the session's settings, and return the encoding of the database."""
        ask = "SELECT pg_backend_pid(), current_setting('server_encoding')"
        pid, encoding = connection.execute(ask).fetchall()[0]
        connection.is_pooled = self._is_surely_pooled or pid != connection.info.backend_pid
        if connection.is_pooled:
            connection.prepare_threshold = None  # prepares nothing, even where `prepare=True` is passed
        else:
            connection.execute(_FOR_THE_SESSION)
        return str(encoding)

    def begin(self, isolation_level: Any = None) -> None:
        """Begin a transaction; behind a pooler, make its settings too."""
        connection: BoundedConnection = self.connection()  # type: ignore[no-untyped-call]
        with __exception_wrapper__:
            # Not prepared: in a pipeline that fails, the server may skip what psycopg takes for prepared.
            connection.execute(_FOR_A_TRANSACTION if connection.is_pooled else "BEGIN", prepare=False)

    def commit(self) -> None:
        """Commit the transaction."""
        connection: BoundedConnection = self.connection()  # type: ignore[no-untyped-call]
        with __exception_wrapper__:
            connection.execute("COMMIT", prepare=False)

    @contextmanager
    def pipelined_transaction(self) -> Iterator[None]:
        """Open a transaction whose statements are sent together, up to one whose result is read.

        Behind a pooler it begins before the pipeline: several statements begin it, which no pipeline takes.
        """
        connection: BoundedConnection = self.connection()  # type: ignore[no-untyped-call]
        with __exception_wrapper__, ExitStack() as stack:
            if connection.is_pooled:
                stack.enter_context(self.atomic())
            pipeline = stack.enter_context(connection.pipeline())
            if not connection.is_pooled:
                stack.enter_context(self.atomic())
            try:
                yield
            except BaseException:
                # An error ends the pipeline. Begin another, or the server would skip the ROLLBACK.
                with suppress(psycopg.Error):
                    pipeline.sync()
                raise

    def rows_affected(self, cursor: Any) -> int:
        """Return how many rows a statement changed. In a pipeline this waits for its result."""
        connection: BoundedConnection = self.connection()  # type: ignore[no-untyped-call]
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:
            with connection.pipeline() as pipeline:
                pipeline.sync()
        return int(cursor.rowcount)

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Execute a statement; behind a pooler, always in a transaction."""
        connection: BoundedConnection = self.connection()  # type: ignore[no-untyped-call]
        own = self.atomic() if connection.is_pooled and not self.in_transaction() else nullcontext()
        with own:
            return super().execute_sql(sql, params)  # type: ignore[no-untyped-call]

    def _refuse_for_a_moment(self, because: str = "") -> None:
        self._refuses_because = because
        self._refuses_until = time.monotonic() + _REFUSE_AFTER_FAILURE_SECONDS


class PooledPostgresql(PooledPostgresqlDatabase, _DurablePostgresql):  # type: ignore[misc]
    """A connection pool of at most `max_connections`; `for_callbacks` of them are reserved for `at_once`.

    `_DurablePostgresql` opens new connections. The pool pings a connection before it is used again, unless it
    was used just now. It drops all connections to a server that takes no more writes.
    """

    _left_at = 0.0  # monotonic; a connection that was opened earlier leads to a server we have left

    def __init__(self, name: str, *, for_callbacks: int = 0, **parameters: Any) -> None:
        self._for_callbacks = for_callbacks
        self._asking = threading.local()
        super().__init__(name, **parameters)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let this thread use a connection that is reserved for callbacks, within the block."""
        self._asking.at_once = True
        try:
            yield
        finally:
            self._asking.at_once = False

    def _connect(self) -> Any:
        at_once = getattr(self._asking, "at_once", False)
        with self._pool_lock:
            others = sum(not used.connection.is_at_once for used in self._in_use.values())
            if not at_once and others >= self._max_connections - self._for_callbacks:
                raise MaxConnectionsExceeded("All connections are in use.")
            connection = super()._connect()
            connection.is_at_once = at_once
            return connection

    def _is_closed(self, connection: Any) -> bool:
        began = time.monotonic()
        if began - connection.used_at < _PING_AFTER_SECONDS and not connection.has_news():
            return bool(connection.closed)
        with waiting_at_most(connection, _PING_WITHIN_SECONDS):
            is_closed = bool(super()._is_closed(connection))
        if is_closed and time.monotonic() - began >= _PING_WITHIN_SECONDS:
            # The server hangs and all other threads wait for the pool, so do not ping every connection.
            self.close_idle()
            self._refuse_for_a_moment()
        return is_closed

    def _can_reuse(self, connection: Any) -> bool:
        connection.used_at = time.monotonic()
        state, connection.last_sqlstate = connection.last_sqlstate, None
        if state in _NOT_OUR_SESSION:
            self._is_surely_pooled = True
        if state in _NOT_OUR_SESSION or (state in LEAVING and self._may_lead_elsewhere(connection)):
            self._left_at = time.monotonic()
            self.close_idle()
        return connection.opened_at > self._left_at and bool(super()._can_reuse(connection))

    def _may_lead_elsewhere(self, connection: Any) -> bool:
        # A new connection that meets a demoted server leads to the same server again: do not reopen it for
        # each write.
        return bool(time.monotonic() - connection.opened_at > _REFUSE_AFTER_FAILURE_SECONDS)
