"""What the API and the pages ask of the ledger. Reads only; nothing here changes state."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import SQL, chunked, fn

from receiver.ledger.models import DISPUTED, MISSED, Delivery, Lookup, ReconcileRun, Task, database
from receiver.ledger.results import EXPIRED, PENDING

# A body may be large, and lists show none.
_WITHOUT_BODY = [field for field in Delivery._meta.sorted_fields if field is not Delivery.body]


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None leaves a field out. `text` is looked for in id, ref, trace id and prompt."""

    status: str | None = None
    type: str | None = None
    settled_by: str | None = None
    disputed: bool | None = None
    text: str | None = None


def list_tasks(wanted: TaskFilter, limit: int, before: tuple[datetime, str] | None = None) -> list[Task]:
    """Return up to `limit` tasks, newest first, from behind the task whose (created_at, id) is `before`."""
    query = Task.select().order_by(Task.created_at.desc(), Task.id.desc()).limit(limit)
    if wanted.status is not None:
        query = query.where(Task.status == wanted.status)
    if wanted.type is not None:
        query = query.where(Task.type == wanted.type)
    if wanted.settled_by is not None:
        query = query.where(Task.settled_by == wanted.settled_by)
    if wanted.disputed is not None:
        query = query.where(DISPUTED if wanted.disputed else SQL(f"NOT COALESCE({DISPUTED.sql}, FALSE)"))
    if wanted.text is not None:
        query = query.where(
            (Task.id == wanted.text)
            | (Task.ref == wanted.text)
            | (Task.trace_id == wanted.text)
            | Task.prompt.contains(wanted.text)
        )
    if before is not None:
        created_at, task_id = before
        query = query.where(
            Task.created_at <= created_at, (Task.created_at < created_at) | (Task.id < task_id)
        )
    with database.connection_context():
        return list(query)


def find_task(task_id: str) -> Task | None:
    """Return the task, or None when we never heard of it."""
    with database.connection_context():
        return Task.get_or_none(Task.id == task_id)


def find_tasks(task_ids: Sequence[str]) -> dict[str, Task]:
    """Return those of the tasks that we have heard of, by their ids."""
    found: dict[str, Task] = {}
    with database.connection_context():
        for some in chunked(task_ids, 1000):
            found |= {task.id: task for task in Task.select().where(Task.id.in_(some))}
    return found


def deliveries_of(task_id: str, limit: int = 100) -> list[Delivery]:
    """Return a task's newest deliveries without their bodies; `duplicate` where an earlier one was equal."""
    query = (
        Delivery.select(*_WITHOUT_BODY)
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


def lookups_of(task_id: str, limit: int = 100) -> list[Lookup]:
    """Return a task's newest look-ups."""
    with database.connection_context():
        return list(Lookup.select().where(Lookup.task == task_id).order_by(Lookup.id.desc()).limit(limit))


def count_given_up(since: datetime, newest: int = 1000) -> int:
    """Return how many tasks were given up since a moment, among the `newest` of those that still are."""
    expired = (
        Task.select(Task.gave_up_at)
        .where(Task.status == EXPIRED)
        .order_by(Task.created_at.desc())
        .limit(newest)
        .tuples()
    )
    with database.connection_context():
        moments: list[Any] = list(expired)
    return sum(gave_up_at >= since for (gave_up_at,) in moments)


def oldest_pending() -> Task | None:
    """Return the pending task that we have known longest."""
    query = Task.select().where(Task.status == PENDING).order_by(Task.created_at, Task.id)
    with database.connection_context():
        task: Task | None = query.first()
        return task


def list_missed(since: datetime, limit: int) -> list[Task]:
    """Return the tasks first heard of since a moment whose final callback never came, newest first."""
    query = (
        Task.select().where(Task.created_at >= since, MISSED).order_by(Task.created_at.desc()).limit(limit)
    )
    with database.connection_context():
        return list(query)


def list_unreadable(limit: int) -> list[Delivery]:
    """Return the newest deliveries that named no task."""
    query = (
        Delivery.select(*_WITHOUT_BODY)
        .where(Delivery.task.is_null())
        .order_by(Delivery.id.desc())
        .limit(limit)
    )
    with database.connection_context():
        return list(query)


def list_runs(limit: int) -> list[ReconcileRun]:
    """Return the newest runs of the reconciler."""
    with database.connection_context():
        return list(ReconcileRun.select().order_by(ReconcileRun.id.desc()).limit(limit))


def last_good_run() -> ReconcileRun | None:
    """Return the newest run that finished without an error."""
    query = (
        ReconcileRun.select()
        .where(ReconcileRun.finished_at.is_null(False), ReconcileRun.error.is_null())
        .order_by(ReconcileRun.id.desc())
    )
    with database.connection_context():
        run: ReconcileRun | None = query.first()
        return run


def last_asking_run(since: datetime) -> ReconcileRun | None:
    """Return the newest run that called upstream, if one has since a moment; most runs find nothing due."""
    query = (
        ReconcileRun.select()
        .where(
            ReconcileRun.started_at >= since, ReconcileRun.finished_at.is_null(False), ReconcileRun.calls > 0
        )
        .order_by(ReconcileRun.started_at.desc())
    )
    with database.connection_context():
        run: ReconcileRun | None = query.first()
        return run


def reconciler_seen_at() -> datetime | None:
    """Return when a reconciler last wrote anything: began a run, ended one, or noted a look-up in between."""
    run_times = ReconcileRun.select(ReconcileRun.started_at, ReconcileRun.finished_at)
    lookup_times = Lookup.select(Lookup.answered_at)
    with database.connection_context():
        newest: list[Any] = [
            query.order_by(model.id.desc()).tuples().first() or ()
            for model, query in ((ReconcileRun, run_times), (Lookup, lookup_times))
        ]
    return max((time for times in newest for time in times if time), default=None)
