"""The schema: finds the migrations that the database lacks and applies them."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from peewee import Database, OperationalError, PostgresqlDatabase
from playhouse.migrations import Runner

from receiver.ledger.engine.bounded import waiting_at_most
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.engine.errors import sqlstate_of
from receiver.ledger.engine.proxy import database
from receiver.ledger.engine.sqlite import NOT_THERE, is_missing, sqlite_lock

_MIGRATIONS = Path(__file__).parents[1] / "migrations"
_MIGRATE_LOCK = 0x6261636B  # an arbitrary key that no other program uses in the same PostgreSQL database
_LOCK_NOT_AVAILABLE = "55P03"
# How long a migration waits for another migration, and for a table's lock. Both exceed statement_timeout and
# idle_in_transaction_session_timeout, which end our own transactions. Meanwhile callbacks wait or go to the
# spool.
_MIGRATE_AFTER_ANOTHER_WITHIN = "5min"
_MIGRATE_LOCKED_WITHIN = "2min"


# What to tell of a schema of a newer version.
WHO_RUNS_ON_IT = "The version right before that one runs on it. No older one does."


class SchemaBehind(RuntimeError):
    """The database lacks migrations that this version needs."""


def migrate(tell: Callable[[str], None] = lambda name: None) -> list[str]:
    """Bring the schema up to date and return the names of the migrations that were applied.

    `tell` gets each name as soon as that migration is applied. Several processes may call this at once. One
    of them applies each migration while the others wait. Raises OperationalError when that takes too long.
    """
    if not on_postgresql():
        database.obj.make_file()
    applied = []
    with database.connection_context(), nullcontext() if on_postgresql() else _migrating_sqlite():
        for name in _pending():
            for one in _migrate_postgresql(name) if on_postgresql() else _runner().up(name):
                tell(one)
                applied.append(one)
    return applied


def install(db: Database, name: str) -> None:
    """Execute a file of `migrations/sql/` for a migration. Blank lines separate its statements."""
    kind = "postgresql" if isinstance(db, PostgresqlDatabase) else "sqlite"
    text = (_MIGRATIONS / "sql" / f"{name}.{kind}.sql").read_text()
    statements = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).split("\n\n")
    for statement in filter(str.strip, statements):
        db.execute_sql(statement)  # type: ignore[no-untyped-call]  # the stubs know the proxy alone


def pending_migrations() -> list[str]:
    """Return the names of the migrations that the database lacks."""
    with database.connection_context():
        return _pending()


def applied_migrations() -> list[str]:
    """Return the names of the migrations that the database has, in their order."""
    with database.connection_context():
        return [migration.name for migration in _runner().status() if migration.applied]


def unknown_migrations() -> list[str]:
    """Return the names of the migrations of a newer version that the database has, in their order."""
    with database.connection_context():
        return [migration.name for migration in _runner().status() if migration.path is None]


def _pending() -> list[str]:
    return [migration.name for migration in _runner().status() if not migration.applied]


def missing_file() -> Path | None:
    """Return the path of SQLite's file if it is missing."""
    if on_postgresql() or not is_missing(database.obj.database):
        return None
    return Path(database.obj.database).absolute()


def require_file() -> None:
    """Raise SchemaBehind when the database is a file that is not there."""
    if file := missing_file():
        raise SchemaBehind(NOT_THERE.format(file))


def require_schema() -> None:
    """Raise SchemaBehind when the database lacks migrations, or is a file that is not there."""
    require_file()
    if pending := pending_migrations():
        raise SchemaBehind(
            f"The database lacks {len(pending)} migration(s), the first is {pending[0]}:"
            " run `flask --app wsgi migrate`."
        )


def _runner() -> Runner:
    return Runner(database.obj, directory=str(_MIGRATIONS))


@contextmanager
def _migrating_sqlite() -> Iterator[None]:
    # In a file: sorting a large table for an index may need as much space as the table.
    database.obj.pragma("temp_store", "default")
    # No transaction: a migration that rebuilds a table must turn foreign keys off outside of one.
    with sqlite_lock():
        yield


def _migrate_postgresql(name: str) -> list[str]:
    """Apply one migration unless another process has applied it meanwhile."""
    try:
        with _migrating_alone():
            return list(_runner().up(name))
    except OperationalError as problem:
        if sqlstate_of(problem) != _LOCK_NOT_AVAILABLE:
            raise
        raise OperationalError(_who_is_in_the_way()) from None


@contextmanager
def _migrating_alone() -> Iterator[None]:
    # The lock belongs to the transaction: a session's lock would stay behind in the pooler's session.
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
