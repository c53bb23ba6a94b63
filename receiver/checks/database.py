"""Checks the database: whether it answers and takes writes, its version, connections and schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from receiver.checks.finding import Finding, bad, good, warning
from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import refusals
from receiver.ledger.engine.db import init_database, on_postgresql
from receiver.ledger.engine.errors import DATABASE_ERRORS, RESCUE, describe
from receiver.ledger.engine.proxy import database
from receiver.ledger.engine.schema import (
    WHO_RUNS_ON_IT,
    missing_file,
    pending_migrations,
    unknown_migrations,
)
from receiver.ledger.engine.sqlite import damage_in

NAME, SCHEMA = "database", "schema"
_OLDEST_POSTGRESQL = 14  # its support ends in November 2026
_WHO = (
    "SELECT current_database(), (SELECT oid FROM pg_database WHERE datname = current_database()),"
    " pg_postmaster_start_time()"
)
_CONNECTIONS = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,"
    " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),"
    " (SELECT datconnlimit FROM pg_database WHERE datname = current_database()),"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    " AND (usename IS DISTINCT FROM current_user OR datname IS DISTINCT FROM current_database()))"
)


def check_database(settings: Settings) -> Iterator[Finding]:
    """Yield what is found. A database that is not there or does not answer ends it."""
    if file := missing_file():
        yield _missing(file)
        return
    try:
        yield from _of_postgresql(settings) if on_postgresql() else _of_sqlite()
        pending, unknown = pending_migrations(), unknown_migrations()
    except DATABASE_ERRORS as problem:
        start = "Start it" if on_postgresql() else "See that the file can be read"
        yield bad(
            NAME,
            f"it cannot be used: {describe(problem)}",
            f"{start}, or correct DATABASE_URL. Until then callbacks wait in the spool.",
        )
        return
    if pending:
        yield bad(
            SCHEMA,
            f"{len(pending)} migration(s) are missing, the first is {pending[0]}",
            "Run: flask --app wsgi migrate",
        )
        return
    yield _newer(unknown[-1]) if unknown else good(SCHEMA, "it is up to date")
    yield _writes()


def _missing(file: Path) -> Finding:
    return bad(
        NAME,
        f"{file} is not there",
        "If it should be, put it back, mount its disk, or correct DATABASE_URL. For a new deployment make"
        " it: flask --app wsgi migrate",
    )


def _newer(last: str) -> Finding:
    return warning(
        SCHEMA,
        f"it is of a newer version of Backstop: its last migration is {last}",
        f"{WHO_RUNS_ON_IT} Start the newer version again, or restore the backup from before the upgrade.",
    )


def _of_sqlite() -> Iterator[Finding]:
    with database.connection_context():
        (version,) = _row("SELECT sqlite_version()")
        damage = damage_in(database.connection())
    yield good(NAME, f"SQLite {version}")
    if damage:
        yield bad(
            NAME,
            f"its file is damaged: {damage}",
            f"Stop all processes, and {RESCUE}. Callbacks that the file refuses wait in the spool.",
        )


def _of_postgresql(settings: Settings) -> Iterator[Finding]:
    with database.connection_context():
        (number,) = _row("SELECT current_setting('server_version_num')::int")
        is_pooled = database.connection().is_pooled
        version, who = number // 10_000, _row(_WHO)
        connections = None if is_pooled else _row(_CONNECTIONS)
    way = "through a pooler" if is_pooled else "directly"
    if version < _OLDEST_POSTGRESQL:
        yield warning(
            NAME, f"PostgreSQL {version} gets no more corrections", "Upgrade it to PostgreSQL 17 or 18."
        )
    else:
        yield good(NAME, f"PostgreSQL {version}, reached {way}")
    if connections:
        yield _connections(settings, *connections)
    if settings.direct_database_url:
        yield _direct(settings, who)


def _connections(settings: Settings, most: int, of_role: int, of_database: int, others: int) -> Finding:
    limit = min(number for number in (most, of_role, of_database) if number >= 0)
    wanted = settings.database_connections
    if wanted > limit:
        return bad(
            NAME,
            f"DATABASE_CONNECTIONS is {wanted}, but the server allows {limit}: under load callbacks go to the"
            " spool",
            f"Set DATABASE_CONNECTIONS={limit}, or raise the server's limit.",
        )
    if wanted > most - others:
        return warning(
            NAME,
            f"DATABASE_CONNECTIONS is {wanted}, but other programs use {others} of the server's {most}",
            f"Set DATABASE_CONNECTIONS={max(most - others, 1)}, or raise max_connections.",
        )
    return good(NAME, f"DATABASE_CONNECTIONS is {wanted}, and the server allows {limit}")


def _direct(settings: Settings, who: Any) -> Finding:
    """Compare what DIRECT_DATABASE_URL leads to with what DATABASE_URL leads to."""
    try:
        is_pooled, directly = _look_directly(settings)
    except DATABASE_ERRORS as problem:
        return bad(
            NAME,
            f"DIRECT_DATABASE_URL cannot be used: {describe(problem)}",
            "Correct DIRECT_DATABASE_URL, or unset it: no migration can run.",
        )
    if directly != who:
        return bad(
            NAME,
            "DIRECT_DATABASE_URL leads to another database than DATABASE_URL: migrations go astray",
            "Correct DIRECT_DATABASE_URL, or unset it.",
        )
    if is_pooled:
        return warning(
            NAME,
            "DIRECT_DATABASE_URL leads through a pooler",
            "Set DIRECT_DATABASE_URL to the server's own address, or unset it.",
        )
    return good(NAME, "DIRECT_DATABASE_URL leads to the same database, directly")


def _look_directly(settings: Settings) -> tuple[bool, Any]:
    """Return whether DIRECT_DATABASE_URL leads through a pooler, and to which database."""
    assert settings.direct_database_url
    database.obj.close_all()
    try:
        init_database(settings.direct_database_url, connections=1)
        with database.connection_context():
            return database.connection().is_pooled, _row(_WHO)
    finally:
        database.obj.close_all()
        init_database(settings.database_url, connections=settings.connections_each)


def _writes() -> Finding:
    try:
        refusals.try_a_write(utcnow())
    except DATABASE_ERRORS as problem:
        return bad(
            NAME,
            f"it takes no writes: {describe(problem)}",
            "Let this user write: to the file and its directory, or to the tables of a server that is no"
            " read-only replica. Make room if the disk is full. Until then callbacks wait in the spool, if"
            " that can be written to.",
        )
    return good(NAME, "it takes writes")


def _row(sql: str) -> Any:
    return database.execute_sql(sql).fetchone()
