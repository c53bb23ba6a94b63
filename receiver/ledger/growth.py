"""How large the database is, and how fast it grows. Its size in each hour is kept for a week."""

import os
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.models import Counter, database

NAME = "size"  # of the rows in `counter`
KEPT_FOR = timedelta(days=7)
_FORMAT = "%Y-%m-%d %H"
_SHORTEST = timedelta(hours=1)


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


def note_size(now: datetime) -> None:
    """Keep the present size if this hour has none, and forget those of before KEPT_FOR."""
    hour, oldest = now.strftime(_FORMAT), (now - KEPT_FOR).strftime(_FORMAT)
    size = database_bytes()
    with writing():
        Counter.insert(name=NAME, labels=hour, shard=0, value=size).on_conflict_ignore().execute()
        Counter.delete().where(Counter.name == NAME, Counter.labels < oldest).execute()


def bytes_a_day(now: datetime) -> float | None:
    """Return by how much the database has grown a day lately; None until an hour has been watched."""
    query = (
        Counter.select(Counter.labels, Counter.value)
        .where(Counter.name == NAME, Counter.labels >= (now - KEPT_FOR).strftime(_FORMAT))
        .order_by(Counter.labels)
        .limit(1)
        .tuples()
    )
    with database.connection_context():
        rows: list[Any] = list(query)
    if not rows:
        return None
    watched = now - datetime.strptime(rows[0][0], _FORMAT)
    if watched < _SHORTEST:
        return None
    return (database_bytes() - float(rows[0][1])) / (watched / timedelta(days=1))
