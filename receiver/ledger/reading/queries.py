"""What the API and the pages ask of the ledger. Reads only; nothing here changes state."""

from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, Select, fn

from receiver.clock import SKEW
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.evidence import ABSENT
from receiver.ledger.models import (
    ANSWERED,
    ASKED,
    DOUBTFUL,
    KNOWN,
    MISSED,
    OPEN,
    SETTLED,
    Delivery,
    Lookup,
    ReconcileRun,
    Task,
    database,
)
from receiver.ledger.reading.deliveries import WITHOUT_BODY
from receiver.upstream.results import EXPIRED, PENDING

# How many seconds passed between two moments.
_SECONDS_BETWEEN = {
    False: "(julianday({1}) - julianday({0})) * 86400",
    True: "EXTRACT(EPOCH FROM {1} - {0})",
}


def find_task(task_id: str) -> Task | None:
    """Return the task, or None when we never heard of it."""
    with database.connection_context():
        return Task.get_or_none(Task.id == task_id)


def deliveries_of(task_id: str, limit: int = 100) -> list[Delivery]:
    """Return a task's newest deliveries without large columns; `duplicate` where an earlier was equal."""
    query = (
        Delivery.select(*WITHOUT_BODY)
        .where(Delivery.task == task_id)
        .order_by(Delivery.id.desc())
        .limit(limit)
    )
    with database.connection_context():
        deliveries = list(query)
        first = (
            Delivery.select(Delivery.digest, fn.MIN(Delivery.id).alias("id"))
            .where(Delivery.task == task_id, Delivery.digest.in_({bytes(d.digest) for d in deliveries}))
            .group_by(Delivery.digest)
        )
        originals = {bytes(row.digest): row.id for row in first}
    for delivery in deliveries:
        delivery.duplicate = delivery.id > originals.get(bytes(delivery.digest), delivery.id)
    return deliveries


def find_delivery(delivery_id: int) -> Delivery | None:
    """Return a delivery, its body included, or None when there is none or it was pruned."""
    with database.connection_context():
        return Delivery.get_or_none(Delivery.id == delivery_id)


def old_tokens_used_at() -> dict[int, datetime]:
    """Return when callbacks last came with older tokens, by the token's position; the newest has 0."""
    query = (
        Delivery.select(Delivery.token, fn.MAX(Delivery.received_at).alias("used_at"))
        .where(SQL("token > 0"))
        .group_by(Delivery.token)
    )
    with database.connection_context():
        rows: list[Any] = list(query)
    return {row.token: row.used_at for row in rows}


def lookups_of(task_id: str, limit: int = 100) -> list[Lookup]:
    """Return a task's newest look-ups."""
    with database.connection_context():
        return list(Lookup.select().where(Lookup.task == task_id).order_by(Lookup.id.desc()).limit(limit))


def given_up(since: datetime, newest: int = 1000) -> tuple[int, datetime | None]:
    """Return how many tasks were given up since a moment, and when we first heard of the first of these.

    Among the `newest` of those that still are given up.
    """
    expired = (
        Task.select(Task.gave_up_at, Task.created_at)
        .where(Task.status == EXPIRED)
        .order_by(Task.created_at.desc())
        .limit(newest)
        .tuples()
    )
    with database.connection_context():
        moments: list[Any] = list(expired)
    known_since = [created_at for gave_up_at, created_at in moments if gave_up_at >= since]
    return len(known_since), min(known_since, default=None)


def oldest_pending_at() -> datetime | None:
    """Return when we first heard of the pending task that we have known longest."""
    query = Task.select(Task.created_at).where(Task.status == PENDING).order_by(Task.created_at, Task.id)
    with database.connection_context():
        task: Task | None = query.first()
    return task.created_at if task else None


def slowest_recovery(since: datetime, newest: int = 1000) -> timedelta | None:
    """Return how long the slowest of the tasks took whose final callback never came, from their submission.

    Of the `newest` among those first heard of since a moment; None where there is none.
    """
    spans = (
        Task.select(fn.COALESCE(Task.submitted_at, Task.created_at).alias("started_at"), Task.settled_at)
        .where(Task.created_at >= since, MISSED)
        .order_by(Task.created_at.desc())
        .limit(newest)
        .alias("recovered")
    )
    seconds = _SECONDS_BETWEEN[on_postgresql()].format("recovered.started_at", "recovered.settled_at")
    with database.connection_context():
        slowest = Select([spans], [fn.MAX(SQL(seconds)).alias("seconds")]).execute(database)[0]["seconds"]
    return None if slowest is None else timedelta(seconds=max(float(slowest), 0))


def list_runs(limit: int, before: int | None = None, asked: bool = False) -> list[ReconcileRun]:
    """Return the newest runs of the reconciler, those older than the run `before`.

    With `asked` those that called upstream: most find nothing due.
    """
    query = ReconcileRun.select().order_by(ReconcileRun.id.desc()).limit(limit)
    if asked:
        query = query.where(ASKED)
    if before is not None:
        query = query.where(ReconcileRun.id < before)
    with database.connection_context():
        return list(query)


def count_due(now: datetime, most: int) -> int:
    """Return how many tasks are due and not being asked about: `most` when there are at least so many."""
    due = [
        Task.select(SQL("1 AS one")).where(
            Task.next_lookup_at.is_null(False), *kind, Task.next_lookup_at <= now
        )
        for kind in ((OPEN, KNOWN), (SETTLED, KNOWN), (DOUBTFUL,))
    ]
    with database.connection_context():
        counts = [
            Task.select(fn.COUNT(SQL("*"))).from_(some.limit(most).alias("due")).scalar() for some in due
        ]
    return min(sum(int(count or 0) for count in counts), most)


def find_run(run_id: int) -> ReconcileRun | None:
    """Return a run of the reconciler, or None when there is none or it was pruned."""
    with database.connection_context():
        return ReconcileRun.get_or_none(ReconcileRun.id == run_id)


def lookups_of_run(run_id: int, limit: int, before: int | None = None) -> list[Lookup]:
    """Return a run's newest look-ups, those older than the look-up `before`."""
    query = Lookup.select().where(Lookup.run == run_id).order_by(Lookup.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Lookup.id < before)
    with database.connection_context():
        return list(query)


def last_good_run() -> ReconcileRun | None:
    """Return the newest run that finished without an error.

    A run that asked nothing is as good as the last one that did: it does not count while upstream fails.
    """
    good = (ReconcileRun.finished_at.is_null(False), ReconcileRun.error.is_null())
    with database.connection_context():
        failing = failing_runs(1)
        earlier = (ReconcileRun.id < failing[0].id,) if failing else ()
        query = ReconcileRun.select().where(*good, *earlier).order_by(ReconcileRun.id.desc())
        run: ReconcileRun | None = query.first()
        return run


def last_answered_run() -> ReconcileRun | None:
    """Return the newest run of whose calls upstream answered half."""
    query = ReconcileRun.select().where(ANSWERED).order_by(ReconcileRun.id.desc())
    with database.connection_context():
        run: ReconcileRun | None = query.first()
        return run


def failing_runs(limit: int) -> list[ReconcileRun]:
    """Return the first runs after the last one of which upstream answered half of the calls."""
    answered = ReconcileRun.select(ReconcileRun.id).where(ANSWERED).order_by(ReconcileRun.id.desc())
    with database.connection_context():
        last = answered.first()
        # One in progress may yet be answered.
        ended = ReconcileRun.finished_at.is_null(False)
        failing = ReconcileRun.select().where(ASKED, ended, ReconcileRun.id > (last.id if last else 0))
        return list(failing.order_by(ReconcileRun.id).limit(limit))


def reconciler_seen_at(now: datetime) -> datetime | None:
    """Return when a reconciler last wrote anything: began a run, ended one, or noted a look-up in between.

    That is in the future only where all of this is: a clock was set back, or is ahead of ours.
    """
    run_times = ReconcileRun.select(ReconcileRun.started_at, ReconcileRun.finished_at)
    lookup_times = Lookup.select(Lookup.answered_at)
    with database.connection_context():
        newest: list[Any] = [
            query.order_by(model.id.desc()).tuples().first() or ()
            for model, query in ((ReconcileRun, run_times), (Lookup, lookup_times))
        ]
    times = [time for row in newest for time in row if time]
    return max((time for time in times if time <= now + SKEW), default=min(times, default=None))


def earliest_waiting(failed_only: bool) -> Task | None:
    """Return the known task without a result that is asked about first, of the next 1,000.

    With `failed_only` the first whose last look-up upstream answered with an error.
    """
    query = (
        Task.select(Task.next_lookup_at, Task.last_lookup_error)
        .where(Task.next_lookup_at.is_null(False), OPEN, KNOWN)
        .order_by(Task.next_lookup_at)
        .limit(1000 if failed_only else 1)
    )
    with database.connection_context():
        for task in query:
            if not failed_only or (task.last_lookup_error or ABSENT) != ABSENT:
                return task
    return None
