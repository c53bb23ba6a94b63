"""How large the database is, and how fast it grows."""

import os
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from peewee import fn

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import Delivery, database

_NEWEST = 1000  # deliveries that the mean size is of


def database_bytes() -> int:
    """Return how many bytes the database takes on its disk; of SQLite with its journal."""
    with database.connection_context():
        if on_postgresql():
            return int(database.execute_sql("SELECT pg_database_size(current_database())").fetchone()[0])
    total = 0
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            total += os.stat(f"{database.obj.database}{suffix}").st_size
    return total


def deliveries_a_day(now: datetime) -> float | None:
    """Return how many deliveries came a day lately; None where too few came to tell.

    By the time that the newest ones took, and of the last day at most.
    """
    newest = Delivery.select(Delivery.received_at).order_by(Delivery.id.desc()).limit(_NEWEST)
    some = newest.where(Delivery.received_at >= now - timedelta(days=1)).alias("newest")
    first, number = fn.MIN(some.c.received_at), fn.COUNT(some.c.received_at)
    with database.connection_context():
        rows: list[Any] = list(Delivery.select(first, number).from_(some).tuples())
    began_at, came = rows[0]
    if came < 2:
        return None
    began_at = began_at if isinstance(began_at, datetime) else datetime.fromisoformat(began_at)
    return float(came) / max((now - began_at).total_seconds(), 1.0) * 86400
