"""Turns DATABASE_URL into a peewee database with durable settings, and opens its transactions."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import Any

from peewee import (  # type: ignore[attr-defined]  # the stubs leave the wrapper out
    Database,
    OperationalError,
    PostgresqlDatabase,
    __exception_wrapper__,
)
from psycopg import RawCursor

from receiver.database_url import postgresql_parameters, sqlite_path
from receiver.ledger.engine.errors import describe
from receiver.ledger.engine.postgresql import PooledPostgresql
from receiver.ledger.engine.proxy import database
from receiver.ledger.engine.sqlite import DurableSqlite, require_sqlite, sqlite_turn

_POSTGRESQL_CONNECTIONS = 8
_CONNECTION_WAIT_SECONDS = 10
_CONNECT_WITHIN_SECONDS = 5
_bound_to: str | None = None  # the URL of the ledger
# Longer than statement_timeout, so that a healthy server cancels a slow statement first.
_ANSWER_WITHIN_SECONDS = 35.0


def init_database(
    url: str,
    answer_within: float = _ANSWER_WITHIN_SECONDS,
    connections: int = _POSTGRESQL_CONNECTIONS,
    for_callbacks: int = 0,
) -> Database:
    """Bind the models to the database behind `url` and return it. Opens no connection.

    The rest is for PostgreSQL: the size of the connection pool, how many of its connections are reserved
    `for_callbacks`, and after how many seconds without an answer a connection is closed.

    A process has one ledger: called again with another URL, this binds all models of the process to that.
    """
    global _bound_to
    if url.startswith("sqlite:"):
        require_sqlite()
        database.initialize(DurableSqlite(sqlite_path(url)))
    else:
        database.initialize(_postgresql(url, answer_within, connections, for_callbacks))
    _bound_to = url
    return database.obj  # type: ignore[no-any-return]  # the stubs leave a proxy's object open


def _postgresql(url: str, answer_within: float, connections: int, for_callbacks: int) -> PooledPostgresql:
    parameters = postgresql_parameters(url)
    name = parameters.pop("dbname")
    bounds = {
        "connect_timeout": _CONNECT_WITHIN_SECONDS,
        "answer_within": answer_within,
        "keepalives_idle": 30,
        "tcp_user_timeout": 20_000,
        "client_encoding": "utf8",  # overrides PGCLIENTENCODING
    }
    pool = {"max_connections": connections, "timeout": _CONNECTION_WAIT_SECONDS}
    return PooledPostgresql(name, for_callbacks=for_callbacks, **{**pool, **bounds, **parameters})


def is_bound_to_another(url: str) -> bool:
    """Tell whether the models are bound to another database than the one behind `url`."""
    return _bound_to not in (None, url)


@contextmanager
def writing(*, at_once: bool = False, pipelined: bool = False) -> Iterator[None]:
    """Open a transaction that writes; it is durable when the block ends.

    `at_once` is for callbacks: on PostgreSQL it may use a connection that is reserved for them. `pipelined`
    saves round trips to PostgreSQL: a statement is sent with the next one whose result is read, and the last
    ones with the commit. So its error may come as late as the end of the block.

    SQLite allows one writer at a time, and its busy handler lets some waiters starve. So our threads and
    processes take turns before they ask SQLite for its lock. Raises OperationalError when the turn does not
    come in time.
    """
    turn = nullcontext() if on_postgresql() else sqlite_turn()
    with turn:
        try:
            with _connected(at_once), _transaction(pipelined):
                yield
        except OperationalError as problem:
            if "readonly" in describe(problem) and not on_postgresql():
                # A connection that was opened while the file was read-only stays read-only: drop them all.
                database.obj.close_idle()
            raise


@contextmanager
def _connected(at_once: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with database.obj.at_once() if at_once and on_postgresql() else nullcontext():
            stack.enter_context(database.connection_context())
        yield


def _transaction(pipelined: bool) -> AbstractContextManager[Any]:
    if pipelined and on_postgresql():
        return database.obj.pipelined_transaction()  # type: ignore[no-any-return]  # a proxy's object is open
    return database.atomic()


def number_placeholders(sql: str) -> str:
    """Return a query builder's statement with the placeholders that `execute_built` needs."""
    if not on_postgresql():
        return sql
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", sql)


def execute_built(sql: str, parameters: Sequence[Any]) -> Any:
    """Execute a frequent statement whose placeholders are numbered, and return its cursor.

    psycopg does not cache long statements. It would parse and number `%s` placeholders at every execution.
    """
    if not on_postgresql():
        return database.execute_sql(sql, parameters)
    with __exception_wrapper__:
        # Prepare at the first use. If psycopg chose a later moment, an earlier failure in the same pipeline
        # could make the server skip the preparation, and psycopg would not notice.
        return RawCursor(database.connection()).execute(sql, parameters, prepare=True)


def on_postgresql() -> bool:
    """Tell whether the ledger is in PostgreSQL; otherwise it is in SQLite."""
    return isinstance(database.obj, PostgresqlDatabase)
