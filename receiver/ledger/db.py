"""Where the ledger lives: a URL becomes a peewee database with its durability settings and its schema."""

import fcntl
import math
import os
import re
import sqlite3
import threading
import time
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
from playhouse.db_url import parse
from playhouse.migrations import Runner
from playhouse.pool import MaxConnectionsExceeded, PooledPostgresqlDatabase, PooledSqliteDatabase
from psycopg import RawCursor

from receiver.ledger.bounded import BoundedAdapter, waiting_at_most
from receiver.ledger.models import database

# What is raised by a database that is away, full, locked, read-only or without our tables, and by one whose
# connections are all busy: the work may be tried again later.
DATABASE_AWAY = (PeeweeException, MaxConnectionsExceeded)

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATE_LOCK = 0x6261636B  # any number that no other program uses in the same PostgreSQL database
_SQLITE_BUSY_TIMEOUT_MS = 10_000  # while a connection is set up
_SQLITE_BLOCKED_MS = 5
# Together they stay below COMMIT_WITHIN_SECONDS, so that the log tells the cause.
_TURN_WITHIN_SECONDS = 5.0
_BEGIN_WITHIN_SECONDS = 3.0
_BEGIN_AGAIN_SECONDS = 0.05
_SQLITE_OLDEST = (3, 35, 0)  # the first with RETURNING
# Platforms' small databases allow about 20 connections, for all processes together.
_POSTGRESQL_CONNECTIONS = 8
_CONNECTION_WAIT_SECONDS = 10
_REFUSE_AFTER_FAILURE_SECONDS = 2.0
_CONNECT_WITHIN_SECONDS = 5
# More than statement_timeout: where the server is able to, it ends a statement itself.
_ANSWER_WITHIN_SECONDS = 35.0
_PING_WITHIN_SECONDS = 3.0
_sqlite_thread = threading.Lock()  # of this process
_LOOK_AGAIN_SECONDS = 0.0005
# Serialization failure, deadlock, lock not available, query cancelled: in PostgreSQL's words the row's
# trouble, not the database's.
_OF_SOME_ROWS = {"40001", "40P01", "55P03", "57014"}
# For locks and servers that hang: but for migrations nothing of ours takes so long. Our statements are
# written for READ COMMITTED; a role or a database may have another default, at which upserts fail under load.
_BOUNDS = (
    "SET default_transaction_isolation TO 'read committed';"
    " SET lock_timeout TO '3s'; SET statement_timeout TO '30s';"
    " SET idle_in_transaction_session_timeout TO '60s'"
)


def describe(problem: Exception) -> str:
    """Return what a database complains about, in one line for a log."""
    while "cannot rollback" in str(problem) and isinstance(problem.__context__, Exception):
        problem = problem.__context__  # SQLite has rolled back by itself, as it does when the disk is full
    return " ".join(str(problem).split()) or type(problem).__name__


def is_away(problem: Exception) -> bool:
    """Tell whether a database cannot do its work at all, rather than with the rows that it was given."""
    if not isinstance(problem, OperationalError | InterfaceError | MaxConnectionsExceeded):
        return False
    return _sqlstate(problem) not in _OF_SOME_ROWS


def is_of_data(problem: Exception) -> bool:
    """Tell whether what was to be written is to blame, so that trying it again later would not help."""
    if not isinstance(problem, (*DATABASE_AWAY, psycopg.Error, sqlite3.Error, OSError)):
        return True  # Python's own, such as a UnicodeEncodeError
    if isinstance(problem, ProgrammingError):
        return not (_sqlstate(problem) or "").startswith("42")  # tables or rights are missing
    return isinstance(problem, DataError | IntegrityError | InternalError | NotSupportedError)


def _sqlstate(problem: object) -> str | None:
    while isinstance(problem, PeeweeException) and hasattr(problem, "orig"):
        problem = problem.orig  # down to what the driver raised: one may be wrapped twice
    return getattr(problem, "sqlstate", None)


class SchemaBehind(RuntimeError):
    """The database lacks migrations that this version needs."""


class _DurableSqlite(PooledSqliteDatabase):
    def __init__(self, path: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # playhouse has no type hints
            path,
            max_connections=None,  # writers take turns, and readers do not wait for anything meanwhile
            check_same_thread=False,  # the pool hands a connection to one thread at a time
            lock_type="IMMEDIATE",  # a transaction that reads before it writes must not have to give way
            pragmas=[
                # First, since switching to WAL may have to wait for others too.
                ("busy_timeout", _SQLITE_BUSY_TIMEOUT_MS),
                ("journal_mode", "wal"),
                ("synchronous", "full"),
                ("foreign_keys", 1),
                # Pages. The web process moves them earlier (checkpoints.py).
                ("wal_autocheckpoint", 16_000),
                # What it takes to undo half a statement of many rows; a file would cost more than it saves.
                ("temp_store", "memory"),
                ("busy_timeout", _SQLITE_BLOCKED_MS),
            ],
        )
        self._file: tuple[int, int] | None = None  # which one was opened first

    def _connect(self) -> Any:
        # What is written to a file that was deleted, or that another has taken the place of, is lost. The
        # other is not opened: to close the last connection to the old would delete the log of the new.
        if self._file is not None and self._file != _identity(self.database):
            raise OperationalError(
                f"{self.database} was deleted, or replaced while it was open: restart all processes"
            )
        connection = super()._connect()
        self._file = self._file or _identity(self.database)
        return connection

    def begin(self, lock_type: str | None = None) -> None:
        """Begin a transaction, and wait for another program that holds the file's lock.

        Not in SQLite, whose waiting would stop all greenlets of the process.
        """
        deadline = time.monotonic() + _BEGIN_WITHIN_SECONDS
        while True:
            try:
                super().begin(lock_type)
                return
            except OperationalError as problem:
                if "locked" not in str(problem) or time.monotonic() > deadline:
                    raise
            time.sleep(_BEGIN_AGAIN_SECONDS)


def _identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from any other, whatever it is called; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class _DurablePostgresql(PostgresqlDatabase):
    psycopg3_adapter = BoundedAdapter
    _refuses_until = 0.0

    def _connect(self) -> Any:
        # peewee connects one thread at a time. When a server does not answer, each would wait for its own
        # time-out behind all others: so for a moment nobody tries.
        if time.monotonic() < self._refuses_until:
            raise OperationalError("the database did not answer a moment ago")
        try:
            connection = super()._connect()  # type: ignore[misc]  # not in the stubs
            # A role or a database may have it off; an acknowledged delivery must be on disk.
            connection.execute("SET synchronous_commit TO on")
            connection.execute(_BOUNDS)
        except Exception:
            self._refuse_for_a_moment()
            raise
        _require_utf8(connection)
        return connection

    def _refuse_for_a_moment(self) -> None:
        self._refuses_until = time.monotonic() + _REFUSE_AFTER_FAILURE_SECONDS


def _require_utf8(connection: Any) -> None:
    encoding = connection.execute("SHOW server_encoding").fetchone()[0]
    if encoding != "UTF8":
        connection.close()
        raise OperationalError(
            f"the encoding of the PostgreSQL database is {encoding}, which cannot hold every callback."
            " Backstop needs UTF8: make another database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE"
            " template0, and set DATABASE_URL to it"
        )


class _PooledPostgresql(PooledPostgresqlDatabase, _DurablePostgresql):  # type: ignore[misc]
    """The pool asks `_DurablePostgresql` for new connections, and pings each one that it hands out again."""

    def _is_closed(self, connection: Any) -> bool:
        began = time.monotonic()
        with waiting_at_most(connection, _PING_WITHIN_SECONDS):
            is_closed = bool(super()._is_closed(connection))  # type: ignore[no-untyped-call]
        if is_closed and time.monotonic() - began >= _PING_WITHIN_SECONDS:
            # The server hangs, and all others wait for the pool: to ping each connection would take long.
            self.close_idle()
            self._refuse_for_a_moment()
        return is_closed


def init_database(url: str, answer_within: float = _ANSWER_WITHIN_SECONDS) -> Database:
    """Bind the models to the database behind `url` and return it. Opens no connection.

    A connection to PostgreSQL is given up when a statement is not answered within `answer_within` seconds.
    """
    params = parse(url, unquote_password=True, unquote_user=True)
    if url.startswith("sqlite:"):
        if sqlite3.sqlite_version_info < _SQLITE_OLDEST:
            raise SystemExit(
                f"Backstop needs SQLite 3.35 or newer; this Python has {sqlite3.sqlite_version}."
            )
        database.initialize(_DurableSqlite(params["database"]))
    else:
        name = params.pop("database")
        bounds = {
            "connect_timeout": _CONNECT_WITHIN_SECONDS,
            "answer_within": answer_within,
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
            "client_encoding": "utf8",  # whatever PGCLIENTENCODING says
        }
        pool = {"max_connections": _POSTGRESQL_CONNECTIONS, "timeout": _CONNECTION_WAIT_SECONDS}
        database.initialize(_PooledPostgresql(name, **{**pool, **bounds, **params}))  # type: ignore[no-untyped-call]
    return database.obj  # type: ignore[no-any-return]  # the stubs leave a proxy's object open


@contextmanager
def writing() -> Iterator[None]:
    """Open a transaction that writes; it is durable when the block ends.

    SQLite has one writer at a time, and its busy handler lets some of many waiters starve: therefore our
    threads and processes take turns before they ask for its lock. OperationalError when that takes too long.
    """
    turn = nullcontext() if on_postgresql() else _sqlite_turn()
    with turn:
        try:
            with database.connection_context(), database.atomic():
                yield
        except OperationalError as problem:
            if "readonly" in describe(problem) and not on_postgresql():
                # A file that was opened while it could not be written to stays so for its connections.
                database.obj.close_idle()
            raise


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


@contextmanager
def _sqlite_turn() -> Iterator[None]:
    deadline = time.monotonic() + _TURN_WITHIN_SECONDS
    if not _sqlite_thread.acquire(timeout=_TURN_WITHIN_SECONDS):
        raise OperationalError("database is locked: another request has been writing for too long")
    try:
        with _sqlite_lock(deadline):
            yield
    finally:
        _sqlite_thread.release()


@contextmanager
def _sqlite_lock(deadline: float = math.inf) -> Iterator[None]:
    """Hold the lock beside the database, which one process has at a time."""
    try:
        # Opened anew each time: a descriptor that a fork has shared would lock nobody out.
        lock = os.open(f"{database.obj.database}.lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        raise OperationalError(f"the lock beside the database cannot be opened: {problem}") from None
    try:
        _lock_until(lock, deadline)
        yield
    finally:
        os.close(lock)


def _lock_until(lock: int, deadline: float) -> None:
    # A lock of a file can be waited for without a bound or not at all, and who holds it may be stopped.
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OperationalError("database is locked: another process is writing") from None
        except OSError as problem:
            raise OperationalError(f"the lock beside the database cannot be taken: {problem}") from None
        time.sleep(_LOOK_AGAIN_SECONDS)


def migrate() -> list[str]:
    """Bring the schema up to date and return the names of the migrations applied, [] when there were none.

    Any number of processes may call it at once: one applies, the others wait and find nothing left to do.
    """
    with database.connection_context(), _migrating_alone():
        return list(_runner().up())


def pending_migrations() -> list[str]:
    """Return the names of the migrations that the database lacks."""
    with database.connection_context():
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
def _migrating_alone() -> Iterator[None]:
    if on_postgresql():
        database.execute_sql("SET lock_timeout TO 0; SET statement_timeout TO 0")
        with waiting_at_most(database.connection(), None):
            database.execute_sql("SELECT pg_advisory_lock(%s)", (_MIGRATE_LOCK,))
            try:
                yield
            finally:
                database.execute_sql("SELECT pg_advisory_unlock(%s)", (_MIGRATE_LOCK,))
                database.execute_sql(_BOUNDS, None)
    else:
        # To sort a large table for an index takes as much of it as there is.
        database.obj.pragma("temp_store", "default")
        # Not a transaction: a migration that rebuilds a table must switch foreign keys off outside of one.
        with _sqlite_lock():
            yield
