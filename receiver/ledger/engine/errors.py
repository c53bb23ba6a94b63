"""What goes wrong with a database, told apart by what can be done about it."""

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

# What is raised by a database that is away, full, locked, read-only or without our tables, and by one whose
# connections are all busy: the work may be tried again later.
DATABASE_ERRORS = (PeeweeException, MaxConnectionsExceeded)
# Serialization failure, deadlock, lock not available, query cancelled: in PostgreSQL's words the row's
# trouble, not the database's.
_OF_SOME_ROWS = {"40001", "40P01", "55P03", "57014"}


def describe(problem: Exception) -> str:
    """Return what a database complains about, in one line for a log."""
    while "cannot rollback" in str(problem) and isinstance(problem.__context__, Exception):
        problem = problem.__context__  # SQLite has rolled back by itself, as it does when the disk is full
    return " ".join(str(problem).split()) or type(problem).__name__


def is_outage(problem: Exception) -> bool:
    """Tell whether a database cannot do its work at all, rather than with the rows that it was given."""
    if sqlstate_of(problem) in LEAVING:
        return True
    if not isinstance(problem, OperationalError | InterfaceError | MaxConnectionsExceeded):
        return False
    return sqlstate_of(problem) not in _OF_SOME_ROWS


def is_of_data(problem: Exception) -> bool:
    """Tell whether what was to be written is to blame, so that trying it again later would not help."""
    if not isinstance(problem, (*DATABASE_ERRORS, psycopg.Error, sqlite3.Error, OSError)):
        return True  # Python's own, such as a UnicodeEncodeError
    if sqlstate_of(problem) in LEAVING:
        return False
    if isinstance(problem, ProgrammingError):
        return not (sqlstate_of(problem) or "").startswith("42")  # tables or rights are missing
    return isinstance(problem, DataError | IntegrityError | InternalError | NotSupportedError)


def sqlstate_of(problem: object) -> str | None:
    """Return the SQLSTATE of an error of PostgreSQL, however it is wrapped; None for any other."""
    while isinstance(problem, PeeweeException) and hasattr(problem, "orig"):
        problem = problem.orig  # down to what the driver raised: one may be wrapped twice
    return getattr(problem, "sqlstate", None)
