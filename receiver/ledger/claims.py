"""Leases due tasks, so that one reconciler at a time asks about each.

See "Leases" in docs/design.md.
"""

from collections.abc import Sequence
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
from receiver.ledger.timetable import APART, SOONEST
from receiver.upstream.services import SERVICES

_NEVER = datetime(9999, 12, 31)
# What waits for an answer, by the index that holds it.
_OVERDUE, _UNCONFIRMED, _DOUBTFUL = (OPEN, KNOWN), (SETTLED, KNOWN), (DOUBTFUL,)
# What the rest of a look-up needs to know of its tasks.
_CLAIMED = (
    *(Task.id, Task.service, Task.type, Task.mode, Task.created_at),
    *(Task.submitted_at, Task.attempts, Task.late_answers, Task.registered_at, Task.refused_at),
    *(Task.silent_since, Task.leased_until, Task.settled_at, Task.callback_status, Task.callback_progress),
    *(Task.lookup_progress, Task.lookup_status, Task.lookup_count, Task.last_lookup_error),
)
_SOON = timedelta(minutes=5)  # a task that is due later has hardly finished yet


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


def is_anything_due(now: datetime, overdue_for: timedelta = timedelta(0)) -> bool:
    """Tell whether a result waits for its confirmation, or any other task has been due for `overdue_for`.

    One query looks into three indexes, however many tasks there are.
    """
    with database.connection_context():
        return bool(_anything_due(now, now - overdue_for).scalar())


def _anything_due(now: datetime, overdue_by: datetime) -> Any:
    # The earliest of each kind, rather than whether any is due: PostgreSQL's plan for any moment expects to
    # meet one that is due soon when it reads all tasks.
    by = ((_OVERDUE, overdue_by), (_UNCONFIRMED, now), (_DOUBTFUL, overdue_by))
    is_due = (
        fn.COALESCE(
            Task.select(fn.MIN(Task.next_lookup_at)).where(Task.next_lookup_at.is_null(False), *kind), _NEVER
        )
        <= moment
        for kind, moment in by
    )
    return Select([], [reduce(or_, is_due)]).bind(database)


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

    All of them are of one service: that of the longest due. Of known tasks the results to be confirmed get
    up to half of the places while others are due; each kind's longest due come first. Places that are left
    go to open tasks that are due soon: asking about them costs no call. With `doubtful` there are doubtful
    tasks alone. While asking is paused nothing is claimed, except for the probe.
    """
    conditions = [Task.next_lookup_at <= min(now, due_by or now)]
    if not probing:
        conditions.append(~fn.EXISTS(Pause.select(SQL("1")).where(in_force(now))))
    of_results, of_others = (*_UNCONFIRMED, *conditions), (*_OVERDUE, *conditions)
    if doubtful:
        shares = [(limit, (*_DOUBTFUL, *conditions))]
    else:
        shares = [(max(limit // 2, 1), of_results), (limit, of_others), (limit, of_results)]
    tasks: list[Task] = []
    with writing():
        service = _service_of_longest_due(now, lease, [wanted for _, wanted in shares[:2]])
        if service is None:
            return Claim((), now + lease, doubtful)
        for up_to, wanted in shares:
            tasks += _claim_some(now, lease, up_to - len(tasks), service, *wanted)
        if tasks and not (doubtful or probing or due_by):
            tasks += _claim_some(now, lease, limit - len(tasks), service, *_OVERDUE, *_due_soon(now))
    return Claim(tuple(tasks), now + lease, doubtful)


def _service_of_longest_due(now: datetime, lease: timedelta, kinds: Sequence[tuple[Any, ...]]) -> str | None:
    # A newer version may have left tasks of a service that this one does not know: ask about the others.
    is_due = (unleased(now, lease), Task.service.in_(tuple(SERVICES)))
    due = Task.select(Task.next_lookup_at, Task.service).order_by(Task.next_lookup_at).limit(1)
    longest = (_unlocked(due.where(*is_due, *wanted)).tuples() for wanted in kinds)
    return min((found for first in longest for found in first), default=(now, None))[1]


def _due_soon(now: datetime) -> tuple[Any, ...]:
    """Return the conditions of tasks that may be asked about before they are due."""
    return (
        (Task.next_lookup_at > now) & (Task.next_lookup_at <= now + _SOON),
        Task.created_at <= now - SOONEST,
        Task.looked_at.is_null() | (Task.looked_at <= now - APART),
    )


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


def _claim_some(now: datetime, lease: timedelta, limit: int, service: str, *conditions: Any) -> list[Task]:
    if limit <= 0:
        return []
    # A task may be due while somebody asks about it: a callback came, or a person wants to know now.
    due = _unlocked(
        Task.select(Task.id)
        .where(unleased(now, lease), Task.service == service, *conditions)
        .order_by(Task.next_lookup_at)
        .limit(limit)
    )
    return list(
        Task.update(next_lookup_at=now + lease, leased_until=now + lease)
        .where(Task.id.in_(due))
        .returning(*_CLAIMED)
        .execute()
    )
