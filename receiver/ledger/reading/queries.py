"""The ledger's queries for the API and the pages. They only read."""

from datetime import datetime
from typing import Any

from peewee import SQL, fn

from receiver.clock import SKEW
from receiver.ledger.evidence import ABSENT
from receiver.ledger.models import (
    ANSWERED,
    ASKED,
    DOUBTFUL,
    KNOWN,
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


def find_task(task_id: str) -> Task | None:
    """Return the task, or None when we never heard of it."""
    with database.connection_context():
        return Task.get_or_none(Task.id == task_id)


def deliveries_of(task_id: str, limit: int = 100) -> list[Delivery]:
    """Return a task's newest deliveries without large columns.

    Each gets an attribute `duplicate`: whether an earlier delivery of the task had the same body.
    """
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
    """Return a delivery with its body; None when there is none or it was pruned."""
    with database.connection_context():
        return Delivery.get_or_none(Delivery.id == delivery_id)


def old_tokens_used_at() -> dict[int, datetime]:
    """Return when callbacks last used each older token, by its position in CALLBACK_TOKEN (newest: 0)."""
    query = (
        Delivery.select(Delivery.token, fn.MAX(Delivery.received_at).alias("used_at"))
        .where(SQL("token > 0"))
        .group_by(Delivery.token)
    )
    with database.connection_context():
        rows: list[Any] = list(query)
    return {row.token: row.used_at for row in rows}


def tokens_used_at() -> dict[int, datetime]:
    """Return when callbacks last used each token, by its position when they came.

    The newest token is looked for among the newest 1,000 deliveries.
    """
    newest = Delivery.select(Delivery.token, Delivery.received_at).order_by(Delivery.received_at.desc())
    with database.connection_context():
        lately: list[Any] = list(newest.limit(1000).tuples())
    # The last one of each counts: the newest.
    first = {token: received_at for token, received_at in reversed(lately) if token is not None}
    return first | old_tokens_used_at()


def lookups_of(task_id: str, limit: int = 100) -> list[Lookup]:
    """Return a task's newest look-ups."""
    with database.connection_context():
        return list(Lookup.select().where(Lookup.task == task_id).order_by(Lookup.id.desc()).limit(limit))


def given_up(since: datetime, newest: int = 1000) -> tuple[int, datetime | None]:
    """Return how many tasks were given up since a moment, and when we first heard of the oldest of them.

    Only the `newest` expired tasks count, and only those that are still expired.
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
    """Return when we first heard of the oldest pending task; None when no task is pending."""
    query = Task.select(Task.created_at).where(Task.status == PENDING).order_by(Task.created_at, Task.id)
    with database.connection_context():
        task: Task | None = query.first()
    return task.created_at if task else None


def list_runs(limit: int, before: int | None = None, asked: bool = False) -> list[ReconcileRun]:
    """Return the reconciler's newest runs that are older than the run `before`.

    With `asked`, return only runs that called upstream. Most runs find nothing due.
    """
    query = ReconcileRun.select().order_by(ReconcileRun.id.desc()).limit(limit)
    if asked:
        query = query.where(ASKED)
    if before is not None:
        query = query.where(ReconcileRun.id < before)
    with database.connection_context():
        return list(query)


def count_due(now: datetime, most: int) -> int:
    """Count the tasks that are due for a look-up and not leased, up to `most`."""
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
    """Return a run of the reconciler; None when there is none or it was pruned."""
    with database.connection_context():
        return ReconcileRun.get_or_none(ReconcileRun.id == run_id)


def lookups_of_run(run_id: int, limit: int, before: int | None = None) -> list[Lookup]:
    """Return a run's newest look-ups that are older than the look-up `before`."""
    query = Lookup.select().where(Lookup.run == run_id).order_by(Lookup.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Lookup.id < before)
    with database.connection_context():
        return list(query)


def last_good_run() -> ReconcileRun | None:
    """Return the newest run that finished without an error.

    While upstream fails, runs that asked nothing do not count: they prove nothing.
    """
    good = (ReconcileRun.finished_at.is_null(False), ReconcileRun.error.is_null())
    with database.connection_context():
        failing = failing_runs(1)
        earlier = (ReconcileRun.id < failing[0].id,) if failing else ()
        query = ReconcileRun.select().where(*good, *earlier).order_by(ReconcileRun.id.desc())
        run: ReconcileRun | None = query.first()
        return run


def last_answered_run() -> ReconcileRun | None:
    """Return the newest run in which upstream answered at least half of the calls."""
    query = ReconcileRun.select().where(ANSWERED).order_by(ReconcileRun.id.desc())
    with database.connection_context():
        run: ReconcileRun | None = query.first()
        return run


def failing_runs(limit: int) -> list[ReconcileRun]:
    """Return the first failing runs: those since upstream last answered at least half of a run's calls."""
    answered = ReconcileRun.select(ReconcileRun.id).where(ANSWERED).order_by(ReconcileRun.id.desc())
    with database.connection_context():
        last = answered.first()
        # A run in progress may still be answered.
        ended = ReconcileRun.finished_at.is_null(False)
        failing = ReconcileRun.select().where(ASKED, ended, ReconcileRun.id > (last.id if last else 0))
        return list(failing.order_by(ReconcileRun.id).limit(limit))


def reconciler_seen_at(now: datetime) -> datetime | None:
    """Return when a reconciler last wrote: the start or the end of a run, or a look-up.

    Times in the future are ignored as long as there are others: they come from a clock that is wrong.
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
    """Return the known task without a result whose look-up is due first.

    With `failed_only`, return the first of the next 1,000 whose last look-up ended in an error.
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
