"""Sorts database errors by what can be done about them."""

import sqlite3

import psycopg
from peewee import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    PeeweeException,
    ProgrammingError,
)
from playhouse.pool import MaxConnectionsExceeded

from receiver.ledger.engine.postgresql import LEAVING

# Raised when the database is down, full, locked, read-only, damaged or without our tables, and when the
# connection pool is exhausted. The work may be retried later. peewee does not wrap what SQLite raises while
# rows are read.
DATABASE_ERRORS = (PeeweeException, MaxConnectionsExceeded, sqlite3.Error)
_OF_THE_WHOLE = (OperationalError, InterfaceError, MaxConnectionsExceeded, sqlite3.OperationalError)
# Serialization failure, deadlock, lock not available, query cancelled: the trouble is with some rows, not
# with the database as a whole.
_OF_SOME_ROWS = {"40001", "40P01", "55P03", "57014"}

# SQLite complains of the file even where that may be written to, and only its directory may not.
_MAY_WRITE = "let this user write to the file and to its directory"
_DAMAGED = ("disk image is malformed", "file is not a database")
RESCUE = 'follow "A damaged SQLite file" in docs/operating.md'


def describe(problem: Exception) -> str:
    """Return a database's complaint as one line for the log."""
    while "cannot rollback" in str(problem) and isinstance(problem.__context__, Exception):
        problem = problem.__context__  # SQLite had already rolled back, for example as the disk is full
    said = " ".join(str(problem).split()) or type(problem).__name__
    if any(words in said for words in _DAMAGED):
        return f"{said}: the file is damaged, {RESCUE}"
    return f"{said}: {_MAY_WRITE}" if "readonly database" in said else said


def is_outage(problem: Exception) -> bool:
    """Tell whether the database as a whole cannot work; otherwise the trouble is with the given rows."""
    if sqlstate_of(problem) in LEAVING:
        return True
    if not isinstance(problem, _OF_THE_WHOLE):
        return False
    return sqlstate_of(problem) not in _OF_SOME_ROWS


def is_of_data(problem: Exception) -> bool:
    """Tell whether the data itself is to blame, so that a retry cannot help."""
    if not isinstance(problem, (*DATABASE_ERRORS, psycopg.Error, OSError)):
        return True  # an error of Python itself, such as UnicodeEncodeError
    if sqlstate_of(problem) in LEAVING:
        return False
    if isinstance(problem, ProgrammingError):
        return not (sqlstate_of(problem) or "").startswith("42")  # tables or rights are missing
    return isinstance(problem, DataError | IntegrityError | InternalError | NotSupportedError)


def sqlstate_of(problem: object) -> str | None:
    """Return the SQLSTATE of a PostgreSQL error, also of a wrapped one; None for any other error."""
    while isinstance(problem, PeeweeException) and hasattr(problem, "orig"):
        problem = problem.orig  # unwrap to the driver's error, which may be wrapped twice
    return getattr(problem, "sqlstate", None)
