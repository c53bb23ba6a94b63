"""How long the newest recoveries took, and how late they were.

A task is recovered when a look-up finds its result and its final callback never came.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, Select, fn

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import MISSED, Task, database

# SQL for the seconds between two moments, by `on_postgresql()`.
_SECONDS_BETWEEN = {
    False: "ROUND((julianday({1}) - julianday({0})) * 86400, 3)",  # of days: 12 s may be 11.99999 s
    True: "EXTRACT(EPOCH FROM {1} - {0})",
}


def slowest_recovery(since: datetime, newest: int = 1000) -> timedelta | None:
    """Return the longest time from submission to result among recovered tasks.

    Only the `newest` of them first heard of since a moment count. None when there are none.
    """
    spans = (
        Task.select(fn.COALESCE(Task.submitted_at, Task.created_at).alias("started_at"), Task.settled_at)
        .where(Task.created_at >= since, MISSED)
        .order_by(Task.created_at.desc())
        .limit(newest)
        .alias("recovered")
    )
    seconds = _seconds_between("recovered.started_at", "recovered.settled_at")
    with database.connection_context():
        slowest = Select([spans], [fn.MAX(seconds).alias("seconds")]).execute(database)[0]["seconds"]
    return None if slowest is None else timedelta(seconds=max(float(slowest), 0))


def lateness(newest: int) -> Sequence[timedelta | None]:
    """Return how long after upstream finished them we knew the results of recovered tasks.

    Only the `newest` of them count, by when we first heard of them. None where upstream did not tell when it
    finished the task.
    """
    query = (
        Task.select(_seconds_between("finished_at", "settled_at").alias("seconds"))
        .where(MISSED)
        .order_by(Task.created_at.desc(), Task.id.desc())
        .limit(newest)
        .tuples()
    )
    with database.connection_context():
        rows: list[Any] = list(query)
    # By upstream's clock, which may be ahead of ours.
    return [None if late is None else timedelta(seconds=max(float(late), 0)) for (late,) in rows]


def _seconds_between(start: str, end: str) -> SQL:
    return SQL(_SECONDS_BETWEEN[on_postgresql()].format(start, end))
