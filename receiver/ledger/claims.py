"""Leases due tasks, so that one reconciler at a time asks about each.

See "Leases" in docs/design.md.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from peewee import SQL, Case, Select, fn

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.mending import unleased
from receiver.ledger.models import DOUBTFUL, KNOWN, OPEN, SETTLED, Pause, Task, database
from receiver.ledger.pauses import in_force
from receiver.upstream.services import SERVICES

_NEVER = datetime(9999, 12, 31)
# What waits for an answer, by the index that holds it.
_OVERDUE, _UNCONFIRMED, _DOUBTFUL = (OPEN, KNOWN), (SETTLED, KNOWN), (DOUBTFUL,)


@dataclass(frozen=True, slots=True)
class Claim:
    """Due tasks of one service that are ours to ask about until `leased_until`.

    All of them are known, or all are doubtful.
    """

    tasks: tuple[Task, ...]
    leased_until: datetime
    doubtful: bool = False
    depth: int = 0  # how often it was halved

    @property
    def ids(self) -> list[str]:
        return [task.id for task in self.tasks]

    @property
    def service(self) -> str:
        return self.tasks[0].service

    def halves(self) -> "tuple[Claim, Claim]":
        """Split the tasks in two, under the same lease."""
        middle = len(self.tasks) // 2
        first, second = self.tasks[:middle], self.tasks[middle:]
        depth = self.depth + 1
        return replace(self, tasks=first, depth=depth), replace(self, tasks=second, depth=depth)


def is_anything_due(now: datetime) -> bool:
    """Tell whether any task is due: one query that looks into three indexes, however many tasks there are."""
    with database.connection_context():
        return bool(_anything_due(now).scalar())


def _anything_due(now: datetime) -> Any:
    # The earliest of each kind, rather than whether any is due: PostgreSQL's plan for any moment expects to
    # meet one that is due soon when it reads all tasks.
    earliest = (
        fn.COALESCE(
            Task.select(fn.MIN(Task.next_lookup_at)).where(Task.next_lookup_at.is_null(False), *kind), _NEVER
        )
        for kind in (_OVERDUE, _UNCONFIRMED, _DOUBTFUL)
    )
    return Select([], [reduce(or_, (moment <= now for moment in earliest))]).bind(database)


def claim(
    now: datetime,
    *,
    limit: int,
    lease: timedelta,
    doubtful: bool = False,
    due_by: datetime | None = None,
    probing: bool = False,
) -> Claim:
    """Take up to `limit` tasks that are due, or were by `due_by`, for as long as the lease.

    All of them are of one service: that of the first. Known tasks without a result come before known ones to
    be confirmed, the longest due first; or, with `doubtful`, doubtful ones alone. While asking is paused
    nothing is claimed, except for the probe that finds out whether that is over.
    """
    conditions = [Task.next_lookup_at <= min(now, due_by or now)]
    if not probing:
        conditions.append(~fn.EXISTS(Pause.select(SQL("1")).where(in_force(now))))
    tasks: list[Task] = []
    with writing():
        for kind in (_DOUBTFUL,) if doubtful else (_OVERDUE, _UNCONFIRMED):
            if len(tasks) < limit:
                service = tasks[0].service if tasks else None
                tasks += _claim_some(now, lease, limit - len(tasks), service, *kind, *conditions)
    return Claim(tuple(tasks), now + lease, doubtful)


def release(claimed: Claim, now: datetime) -> None:
    """Return tasks that were claimed and not asked about: they are due again at once, and charged nothing."""
    ours = Task.select(Task.id).where(Task.id.in_(claimed.ids), Task.leased_until == claimed.leased_until)
    due_at = Case(None, [(Task.next_lookup_at == claimed.leased_until, now)], Task.next_lookup_at)
    with writing():
        Task.update(next_lookup_at=due_at, leased_until=None).where(Task.id.in_(locked(ours))).execute()


def locked(tasks: Any) -> Any:
    """Return the query so that it locks its tasks in id order: two writers cannot deadlock."""
    # By the bytes of the ids, as Python sorts them. On SQLite there is one writer.
    return tasks.order_by(Task.id.collate('"C"')).for_update() if on_postgresql() else tasks


def _unlocked(tasks: Any) -> Any:
    """Return the query so that it leaves out what another transaction has locked: a claim never waits."""
    return tasks.for_update("FOR UPDATE SKIP LOCKED") if on_postgresql() else tasks


def _claim_some(
    now: datetime, lease: timedelta, limit: int, service: str | None, *conditions: Any
) -> list[Task]:
    # A task may be due while somebody asks about it: a callback came, or a person wants to know now. A newer
    # version may have left tasks of a service that this one does not know: ask about the others.
    is_due = (unleased(now, lease), Task.service.in_(tuple(SERVICES)), *conditions)
    first = _unlocked(Task.select(Task.service).where(*is_due).order_by(Task.next_lookup_at).limit(1))
    due = _unlocked(
        Task.select(Task.id)
        .where(*is_due, Task.service == (service or first))
        .order_by(Task.next_lookup_at)
        .limit(limit)
    )
    return list(
        Task.update(next_lookup_at=now + lease, leased_until=now + lease)
        .where(Task.id.in_(due))
        .returning(
            Task.id,
            Task.service,
            Task.attempts,
            Task.late_answers,
            Task.registered_at,
            Task.refused_at,
            Task.silent_since,
            Task.leased_until,
            Task.settled_at,
            Task.callback_status,
            Task.callback_progress,
            Task.lookup_progress,
            Task.lookup_status,
        )
        .execute()
    )
