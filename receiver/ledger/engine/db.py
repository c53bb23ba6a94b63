"""Where the ledger lives: a URL becomes a peewee database with its durability settings and its schema."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
# More than statement_timeout: where the server is able to, it ends a statement itself.
_ANSWER_WITHIN_SECONDS = 35.0


def init_database(
    url: str,
    answer_within: float = _ANSWER_WITHIN_SECONDS,
    connections: int = _POSTGRESQL_CONNECTIONS,
    for_callbacks: int = 0,
) -> Database:
    """Bind the models to the database behind `url` and return it. Opens no connection.

    To PostgreSQL it opens up to so many `connections`, some of them only `for_callbacks`. One is given up
    when a statement is not answered within `answer_within` seconds.

    A process has one ledger: called again with another URL, this binds all models of the process to that.
    """
    global _bound_to
    if url.startswith("sqlite:"):
        require_sqlite()
        database.initialize(DurableSqlite(sqlite_path(url)))
    else:
        parameters = postgresql_parameters(url)
        name = parameters.pop("dbname")
        bounds = {
            "connect_timeout": _CONNECT_WITHIN_SECONDS,
            "answer_within": answer_within,
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
            "client_encoding": "utf8",  # whatever PGCLIENTENCODING says
        }
        pool = {"max_connections": connections, "timeout": _CONNECTION_WAIT_SECONDS}
        database.initialize(
            PooledPostgresql(name, for_callbacks=for_callbacks, **{**pool, **bounds, **parameters})
        )
    _bound_to = url
    return database.obj  # type: ignore[no-any-return]  # the stubs leave a proxy's object open


def is_bound_to_another(url: str) -> bool:
    """Tell whether the models are bound to another database than the one behind `url`."""
    return _bound_to not in (None, url)


@contextmanager
def writing(*, at_once: bool = False) -> Iterator[None]:
    """Open a transaction that writes; it is durable when the block ends.

    `at_once` is for callbacks: on PostgreSQL it may take the connection that is kept free for them.

    SQLite has one writer at a time, and its busy handler lets some of many waiters starve: therefore our
    threads and processes take turns before they ask for its lock. OperationalError when that takes too long.
    """
    turn = nullcontext() if on_postgresql() else sqlite_turn()
    with turn:
        try:
            with _connected(at_once), database.atomic():
                yield
        except OperationalError as problem:
            if "readonly" in describe(problem) and not on_postgresql():
                # A file that was opened while it could not be written to stays so for its connections.
                database.obj.close_idle()
            raise


@contextmanager
def _connected(at_once: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        with database.obj.at_once() if at_once and on_postgresql() else nullcontext():
            stack.enter_context(database.connection_context())
        yield


@contextmanager
def pipelined() -> Iterator[None]:
    """Send the block's statements to PostgreSQL together. What is wrong with one is raised by the end."""
    if not on_postgresql():
        yield
        return
    with __exception_wrapper__, database.connection().pipeline():
        yield


def number_placeholders(sql: str) -> str:
    """Return a statement of the query builder as `execute_built` takes it."""
    if not on_postgresql():
        return sql
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", sql)


def execute_built(sql: str, parameters: Sequence[Any]) -> Any:
    """Execute a statement that is executed often, and return its cursor.

    PostgreSQL numbers its placeholders. Those of the query builder psycopg would have to find and to number
    each time: a long statement is not kept in its cache.
    """
    if not on_postgresql():
        return database.execute_sql(sql, parameters)
    with __exception_wrapper__:
        # Prepare it at its first use. If psycopg decided later, it would take a statement for prepared that
        # the server skipped, because an earlier one of the same pipeline had failed.
        return RawCursor(database.connection()).execute(sql, parameters, prepare=True)


def on_postgresql() -> bool:
    """Tell whether the ledger lives in PostgreSQL; otherwise it is SQLite."""
    return isinstance(database.obj, PostgresqlDatabase)
