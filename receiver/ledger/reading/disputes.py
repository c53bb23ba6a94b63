"""Queries about disputes: how many are unacknowledged, and whether upstream knows our tasks at all."""

from datetime import datetime
from typing import Any

from peewee import SQL, fn

from receiver.ledger.models import ANSWERED, UNACKNOWLEDGED, Lookup, ReconcileRun, Task, database
from receiver.upstream.results import FAILED

MOST_COUNTED = 10_000
_LATELY_RUNS = 20
_LATELY_LOOKUPS = 500
_UNKNOWN_TASKS = 10  # fewer may be somebody's tests or a forger's first tries


def count_unacknowledged(since: datetime) -> int:
    """Count the unacknowledged disputes among tasks first heard of since a moment, up to MOST_COUNTED."""
    some = Task.select(Task.id).where(UNACKNOWLEDGED, Task.created_at >= since).limit(MOST_COUNTED)
    with database.connection_context():
        return int(Task.select(fn.COUNT(SQL("*"))).from_(some.alias("disputed")).scalar() or 0)


def knows_none(since: datetime) -> bool:
    """Tell whether upstream knew none of the tasks that we asked about since a moment.

    Only the newest answered runs count. False when they asked about too few tasks to tell.
    """
    runs = (
        ReconcileRun.select()
        .where(ANSWERED, ReconcileRun.started_at >= since)
        .order_by(ReconcileRun.id.desc())
        .limit(_LATELY_RUNS)
    )
    with database.connection_context():
        newest = list(runs)
        if not newest or any(_knew_any(run) for run in newest):
            return False
        # Upstream also calls back for submissions that it refuses, and may keep no record of them.
        may_be_refused = fn.COALESCE(Task.callback_status, "") == FAILED
        lookups = (
            Lookup.select(Lookup.task)
            .join(Task)
            .where(Lookup.run.in_([run.id for run in newest]), Lookup.verdict == "absent", ~may_be_refused)
            .limit(_LATELY_LOOKUPS)
        )
        rows: list[Any] = list(lookups.tuples())
    return len(set(rows)) >= _UNKNOWN_TASKS


def _knew_any(run: ReconcileRun) -> bool:
    # The ids of a failed call count as neither known nor absent.
    return run.settled + run.running > 0 or (run.errors == 0 and run.asked > run.absent)
