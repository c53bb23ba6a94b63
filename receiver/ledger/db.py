"""Where the ledger lives: a URL becomes a peewee database with its durability settings and its schema."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from peewee import (  # type: ignore[attr-defined]  # the stubs leave the wrapper out
    Database,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PeeweeException,
    PostgresqlDatabase,
    ProgrammingError,
    __exception_wrapper__,
)
from playhouse.migrations import Runner
from playhouse.pool import MaxConnectionsExceeded
from psycopg import RawCursor

from receiver.ledger.bounded import waiting_at_most
from receiver.ledger.database_url import postgresql_parameters, sqlite_path
from receiver.ledger.models import database
from receiver.ledger.postgresql import LEAVING, PooledPostgresql
from receiver.ledger.sqlite import DurableSqlite, require_sqlite, sqlite_lock, sqlite_turn

# What is raised by a database that is away, full, locked, read-only or without our tables, and by one whose
# connections are all busy: the work may be tried again later.
DATABASE_AWAY = (PeeweeException, MaxConnectionsExceeded)

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATE_LOCK = 0x6261636B  # any number that no other program uses in the same PostgreSQL database
_POSTGRESQL_CONNECTIONS = 8
_CONNECTION_WAIT_SECONDS = 10
_CONNECT_WITHIN_SECONDS = 5
# More than statement_timeout: where the server is able to, it ends a statement itself.
_ANSWER_WITHIN_SECONDS = 35.0
# Serialization failure, deadlock, lock not available, query cancelled: in PostgreSQL's words the row's
# trouble, not the database's.
_OF_SOME_ROWS = {"40001", "40P01", "55P03", "57014"}
_LOCK_NOT_AVAILABLE = "55P03"
# How long a migration waits for another to end, and for what others do with a table: longer than a statement
# and a pause within a transaction of ours may take. Meanwhile all callbacks wait too, or go to the spool.
_MIGRATE_AFTER_ANOTHER_WITHIN = "5min"
_MIGRATE_LOCKED_WITHIN = "2min"


def describe(problem: Exception) -> str:
    """Return what a database complains about, in one line for a log."""
    while "cannot rollback" in str(problem) and isinstance(problem.__context__, Exception):
        problem = problem.__context__  # SQLite has rolled back by itself, as it does when the disk is full
    return " ".join(str(problem).split()) or type(problem).__name__


def is_away(problem: Exception) -> bool:
    """Tell whether a database cannot do its work at all, rather than with the rows that it was given."""
    if _sqlstate(problem) in LEAVING:
        return True
    if not isinstance(problem, OperationalError | InterfaceError | MaxConnectionsExceeded):
        return False
    return _sqlstate(problem) not in _OF_SOME_ROWS


def is_of_data(problem: Exception) -> bool:
    """Tell whether what was to be written is to blame, so that trying it again later would not help."""
    if not isinstance(problem, (*DATABASE_AWAY, psycopg.Error, sqlite3.Error, OSError)):
        return True  # Python's own, such as a UnicodeEncodeError
    if _sqlstate(problem) in LEAVING:
        return False
    if isinstance(problem, ProgrammingError):
        return not (_sqlstate(problem) or "").startswith("42")  # tables or rights are missing
    return isinstance(problem, DataError | IntegrityError | InternalError | NotSupportedError)


def _sqlstate(problem: object) -> str | None:
    while isinstance(problem, PeeweeException) and hasattr(problem, "orig"):
        problem = problem.orig  # down to what the driver raised: one may be wrapped twice
    return getattr(problem, "sqlstate", None)


class SchemaBehind(RuntimeError):
    """The database lacks migrations that this version needs."""


def init_database(
    url: str,
    answer_within: float = _ANSWER_WITHIN_SECONDS,
    connections: int = _POSTGRESQL_CONNECTIONS,
    for_callbacks: int = 0,
) -> Database:
    """Bind the models to the database behind `url` and return it. Opens no connection.

    To PostgreSQL it opens up to so many `connections`, some of them only `for_callbacks`. One is given up
    when a statement is not answered within `answer_within` seconds.
    """
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
    return database.obj  # type: ignore[no-any-return]  # the stubs leave a proxy's object open


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
def in_one_trip() -> Iterator[None]:
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
        # Prepared at its first use: one that psycopg decides to prepare later it would take for prepared even
        # when it was skipped, because an earlier one of the same trip had failed.
        return RawCursor(database.connection()).execute(sql, parameters, prepare=True)


def on_postgresql() -> bool:
    """Tell whether the ledger lives in PostgreSQL; otherwise it is SQLite."""
    return isinstance(database.obj, PostgresqlDatabase)


def migrate() -> list[str]:
    """Bring the schema up to date and return the names of the migrations applied, [] when there were none.

    Any number of processes may call it at once: each migration is applied by one of them, while the others
    wait. OperationalError when that takes too long.
    """
    with database.connection_context():
        if not on_postgresql():
            with _migrating_sqlite():
                return list(_runner().up())
        return [applied for name in _pending() for applied in _migrate_postgresql(name)]


def pending_migrations() -> list[str]:
    """Return the names of the migrations that the database lacks."""
    with database.connection_context():
        return _pending()


def _pending() -> list[str]:
    return [migration.name for migration in _runner().status() if not migration.applied]


def require_schema() -> None:
    """Raise SchemaBehind when the database lacks migrations."""
    if pending := pending_migrations():
        raise SchemaBehind(
            f"The database lacks {len(pending)} migration(s), the first is {pending[0]}:"
            " run `flask --app wsgi migrate`."
        )


def _runner() -> Runner:
    return Runner(database.obj, directory=str(_MIGRATIONS))


@contextmanager
def _migrating_sqlite() -> Iterator[None]:
    # To sort a large table for an index takes as much of it as there is.
    database.obj.pragma("temp_store", "default")
    # Not a transaction: a migration that rebuilds a table must switch foreign keys off outside of one.
    with sqlite_lock():
        yield


def _migrate_postgresql(name: str) -> list[str]:
    """Apply one migration, unless another process has done so meanwhile."""
    try:
        with _migrating_alone():
            return list(_runner().up(name))
    except OperationalError as problem:
        if _sqlstate(problem) != _LOCK_NOT_AVAILABLE:
            raise
        raise OperationalError(_who_is_in_the_way()) from None


@contextmanager
def _migrating_alone() -> Iterator[None]:
    # The lock belongs to the transaction: one of a session would stay behind in a pooler's.
    with waiting_at_most(database.connection(), None), database.atomic():
        database.execute_sql(
            "SET LOCAL statement_timeout TO 0; SET LOCAL idle_in_transaction_session_timeout TO 0;"
            f" SET LOCAL lock_timeout TO '{_MIGRATE_AFTER_ANOTHER_WITHIN}'"
        )
        database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_MIGRATE_LOCK,))
        database.execute_sql(f"SET LOCAL lock_timeout TO '{_MIGRATE_LOCKED_WITHIN}'")
        yield


def _who_is_in_the_way() -> str:
    holders = database.execute_sql(
        "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE datname = current_database() AND locktype = 'advisory' AND classid = 0 AND objid = %s"
        " AND granted",
        (_MIGRATE_LOCK,),
    ).fetchall()
    if not holders:
        return (
            f"other sessions have kept a table locked for {_MIGRATE_LOCKED_WITHIN}."
            " pg_stat_activity shows them; migrate again when they have ended"
        )
    (holder,) = holders[0]
    return (
        f"session {holder} has been migrating for {_MIGRATE_AFTER_ANOTHER_WITHIN}. Migrate again when it has"
        " ended. If no migration is running, an earlier version has left its lock in a pooler's session;"
        f" this ends that session: SELECT pg_terminate_backend({holder})"
    )
