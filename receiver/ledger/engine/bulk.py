"""Reads and writes whole tables of the ledger, row by row, so that they may be larger than the memory."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peewee import (  # type: ignore[attr-defined]  # the stubs leave the wrapper out
    AutoField,
    Model,
    __exception_wrapper__,
    fn,
)

from receiver.ledger.engine.bounded import waiting_at_most
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.proxy import database

Models = Sequence[type[Model]]

# The file that the rows go to or come from may be slow.
_UNHURRIED = "SET LOCAL statement_timeout TO 0; SET LOCAL idle_in_transaction_session_timeout TO 0"


@contextmanager
def snapshot() -> Iterator[None]:
    """Open a transaction that reads the ledger as it is now, however long it lasts. It blocks no writer.

    Meanwhile SQLite's write-ahead log grows by what is written, and PostgreSQL keeps old versions of rows.
    """
    with database.connection_context():
        if not on_postgresql():
            with database.transaction("DEFERRED"):  # IMMEDIATE, our default, would block writers
                yield
            return
        with database.atomic():
            database.execute_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # Read in the primary key's order, instead of sorting a copy of the table.
            database.execute_sql(f"{_UNHURRIED}; SET LOCAL enable_sort TO off")
            yield


def read_rows(model: type[Model]) -> Iterator[Sequence[Any]]:
    """Yield each row of a table, in the order of its primary key, as the driver gives it."""
    sql, _ = model.select().order_by(model._meta.primary_key).sql()
    with __exception_wrapper__:
        if on_postgresql():
            yield from database.connection().cursor().stream(sql)
        else:
            yield from database.connection().execute(sql)


@contextmanager
def replacing(models: Models) -> Iterator[None]:
    """Open a transaction that writes whole tables. In it nobody else writes them, and no trigger acts."""
    with writing():
        if on_postgresql():
            with waiting_at_most(database.connection(), None), _postgresql_triggers_off(models):
                yield
        else:
            with _sqlite_triggers_off():
                yield


@contextmanager
def _postgresql_triggers_off(models: Models) -> Iterator[None]:
    tables = [_quoted(model) for model in models]
    database.execute_sql(f"{_UNHURRIED}; LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE")
    for table in tables:
        database.execute_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield
    for table in tables:
        database.execute_sql(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@contextmanager
def _sqlite_triggers_off() -> Iterator[None]:
    triggers = database.execute_sql(
        "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
    ).fetchall()
    for name, _ in triggers:
        database.execute_sql(f'DROP TRIGGER "{name}"')
    yield
    for _, sql in triggers:
        database.execute_sql(sql)


def write_rows(model: type[Model], rows: Iterable[Sequence[Any]]) -> int:
    """Insert rows, each with a value for every column of the model. Return how many."""
    names = [field.column_name for field in model._meta.sorted_fields]
    columns = ", ".join(f'"{name}"' for name in names)
    with __exception_wrapper__:
        if not on_postgresql():
            places = ", ".join("?" * len(names))
            # The names are the models' own.
            sql = f"INSERT INTO {_quoted(model)} ({columns}) VALUES ({places})"  # noqa: S608
            return int(database.connection().executemany(sql, rows).rowcount)
        cursor = database.connection().cursor()
        with cursor.copy(f"COPY {_quoted(model)} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return int(cursor.rowcount)


def is_numbered(model: type[Model]) -> bool:
    """Tell whether the database numbers the rows of a table itself."""
    return isinstance(model._meta.primary_key, AutoField)


def last_number(model: type[Model]) -> int:
    """Return the last number that the database has given to a row, deleted ones included; 0 for none."""
    if on_postgresql():
        sql = "SELECT pg_sequence_last_value(pg_get_serial_sequence(%s, 'id')::regclass)"
    else:
        sql = "SELECT seq FROM sqlite_sequence WHERE name = ?"
    rows = database.execute_sql(sql, (model._meta.table_name,)).fetchall()
    given = rows[0][0] if rows else None
    greatest = model.select(fn.MAX(model._meta.primary_key)).scalar()
    return max(given or 0, greatest or 0)


def continue_after(model: type[Model], number: int) -> None:
    """Let the database give the next row a number after this one, and after those of all rows."""
    last = max(number, last_number(model))
    name = model._meta.table_name
    if last and on_postgresql():
        database.execute_sql("SELECT setval(pg_get_serial_sequence(%s, 'id')::regclass, %s)", (name, last))
    elif last:
        # A table into which nothing was inserted yet has no row there. Other tables than those with
        # AUTOINCREMENT go on after their greatest number, and do not read it.
        database.execute_sql("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
        database.execute_sql("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))


def _quoted(model: type[Model]) -> str:
    return f'"{model._meta.table_name}"'
