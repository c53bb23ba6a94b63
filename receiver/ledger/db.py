"""Where the ledger lives: a URL becomes a peewee database with its durability settings and its schema."""

import contextlib
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
from playhouse.migrations import Runner
from playhouse.pool import MaxConnectionsExceeded, PooledSqliteDatabase
from psycopg import RawCursor

from receiver.database_url import postgresql_parameters, sqlite_path
from receiver.ledger.bounded import waiting_at_most
from receiver.ledger.models import database
from receiver.ledger.postgresql import LEAVING, PooledPostgresql

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
_POSTGRESQL_CONNECTIONS = 8
_CONNECTION_WAIT_SECONDS = 10
_CONNECT_WITHIN_SECONDS = 5
# More than statement_timeout: where the server is able to, it ends a statement itself.
_ANSWER_WITHIN_SECONDS = 35.0
_sqlite_thread = threading.Lock()  # of this process
_LOOK_AGAIN_SECONDS = 0.0005
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
        if sqlite3.sqlite_version_info < _SQLITE_OLDEST:
            raise SystemExit(
                f"Backstop needs SQLite 3.35 or newer; this Python has {sqlite3.sqlite_version}."
            )
        database.initialize(_DurableSqlite(sqlite_path(url)))
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
    turn = nullcontext() if on_postgresql() else _sqlite_turn()
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
    with _sqlite_lock():
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
