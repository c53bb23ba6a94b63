"""Leases due tasks, so that one reconciler at a time asks about each.

See "Leases" in docs/design.md.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from functools import partial, reduce
from operator import or_
from typing import Any

from peewee import SQL, Case, Select, fn

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.mending import absurd_lease, unleased
from receiver.ledger.models import DOUBTFUL, KNOWN, OPEN, SETTLED, Pause, Task, database
from receiver.ledger.pauses import ALL, in_force, waits_for_probe
from receiver.ledger.timetable import APART, SOONEST
from receiver.upstream.results import FINAL, PENDING
from receiver.upstream.services import SERVICES, Lookups

_NEVER = datetime(9999, 12, 31)
# What waits for an answer, by the index that holds it.
_KINDS = {"overdue": (OPEN, KNOWN), "unconfirmed": (SETTLED, KNOWN), "doubtful": (DOUBTFUL,)}
# What the rest of a look-up needs to know of its tasks.
_CLAIMED = (
    *(Task.id, Task.service, Task.service_source, Task.type, Task.mode, Task.created_at),
    *(Task.submitted_at, Task.attempts, Task.late_answers, Task.registered_at, Task.refused_at),
    *(Task.silent_since, Task.leased_until, Task.settled_at, Task.callback_status, Task.callback_progress),
    *(Task.lookup_progress, Task.lookup_status, Task.lookup_count, Task.last_lookup_error),
)
_SOON = timedelta(minutes=5)  # a task that is due later has hardly finished yet


class _Ways(Enum):
    """Which pauses a claim respects."""

    ASKING = "asking"  # all of them
    PROBING_OTHERS = "probing others"  # those of single services
    PROBING = "probing"  # none


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

    Tasks of a paused service do not count until its next probe is due. A pause of all services does not
    matter here. One query looks into three indexes, however many tasks there are.
    """
    with database.connection_context():
        return bool(_anything_due.scalar(now=now, overdue_by=now - overdue_for))


def _build_anything_due(now: Any, overdue_by: Any) -> Any:
    # The earliest of each kind, rather than whether any is due: PostgreSQL's plan for any moment expects to
    # meet one that is due soon when it reads all tasks.
    by = {"overdue": overdue_by, "unconfirmed": now, "doubtful": overdue_by}
    may_be_asked = Task.service.in_(_asked_services()) & _is_of_none(waits_for_probe(now))
    is_due = (
        fn.COALESCE(
            Task.select(fn.MIN(Task.next_lookup_at)).where(
                Task.next_lookup_at.is_null(False), may_be_asked, *_KINDS[kind]
            ),
            _NEVER,
        )
        <= moment
        for kind, moment in by.items()
    )
    return Select([], [reduce(or_, is_due)]).bind(database)


def claim(
    now: datetime,
    *,
    limit: int,
    lease: timedelta,
    doubtful: bool = False,
    due_by: datetime | None = None,
    probe: str | None = None,
    besides: Collection[str] = (),
) -> Claim:
    """Take up to `limit` tasks that are due, or were by `due_by`, for as long as the lease.

    All of them are of one service: that of the longest due, those in `besides` left out. A service without
    batches gives one task. Of known tasks the results to be confirmed get up to half of the places while
    others are due; each kind's longest due come first. Places that are left go to open tasks that are due
    soon: asking about them costs no call. With `doubtful` there are doubtful tasks alone. While asking is
    paused nothing is claimed, except for a `probe` of a service or of ALL. The latter asks about a service
    that is not paused itself, if it can.
    """
    when = {"now": now, "due_by": min(now, due_by or now), "absurd": absurd_lease(now, lease)}
    tasks: list[Task] = []
    with writing():
        kinds = ("doubtful",) if doubtful else ("unconfirmed", "overdue")
        way, service = _way_and_service(kinds, probe, when, besides)
        if service is not None:
            soon_too = due_by is None and probe is None
            for up_to, kind in _shares(service, limit, doubtful, soon_too):
                if up_to > len(tasks) and (tasks or kind != "soon"):
                    some = {"limit": up_to - len(tasks), "service": service, "until": now + lease}
                    tasks += _claim_some[kind, way].objects(Task, **when, **some)
    return Claim(tuple(tasks), now + lease, doubtful)


def _shares(service: str, limit: int, doubtful: bool, soon_too: bool) -> list[tuple[int, str]]:
    """Return up to how many tasks there may be once those of each kind are claimed, in this order."""
    if service in SERVICES and SERVICES[service].lookups is Lookups.SINGLE:
        limit = 1
    if doubtful:
        return [(limit, "doubtful")]
    shares = [(max(limit // 2, 1), "unconfirmed"), (limit, "overdue"), (limit, "unconfirmed")]
    return [*shares, (limit, "soon")] if soon_too else shares


def _way_and_service(
    kinds: Iterable[str], probe: str | None, when: dict[str, datetime], besides: Collection[str]
) -> tuple[_Ways, str | None]:
    """Return which pauses count, and the service of the task that has been due for longest, or None."""
    if probe:
        return _Ways.PROBING, probe
    others = sorted(besides)
    ways = (_Ways.ASKING,) if probe is None else (_Ways.PROBING_OTHERS, _Ways.PROBING)
    for way in ways:
        longest_due = [
            task for kind in kinds for task in _longest_due[kind, way].objects(Task, **when, besides=others)
        ]
        if longest_due:
            return way, min(longest_due, key=lambda task: task.next_lookup_at).service
    return ways[-1], None


def _is_due(kind: str, way: _Ways, now: Any, due_by: Any) -> tuple[Any, ...]:
    if kind == "soon":
        return (*_KINDS["overdue"], *_is_due_soon(now))
    conditions = (*_KINDS[kind], Task.next_lookup_at <= due_by)
    if way is _Ways.PROBING:
        return conditions
    conditions = (*conditions, _is_of_none(in_force(now)))
    if way is _Ways.PROBING_OTHERS:
        return conditions
    of_all = Pause.select(SQL("1")).where(in_force(now), Pause.service == ALL)
    return (*conditions, ~fn.EXISTS(of_all))


def _asked_services() -> tuple[str, ...]:
    # A newer version may have left tasks of a service that this one does not know: ask about the others.
    return tuple(name for name, service in SERVICES.items() if service.lookups is not Lookups.NONE)


def _is_of_none(pauses: Any) -> Any:
    """Return the condition of tasks whose own service is in none of these pauses."""
    return Task.service.not_in(Pause.select(Pause.service).where(pauses))


def _is_due_soon(now: Any) -> tuple[Any, ...]:
    """Return the conditions of tasks that may be asked about before they are due."""
    return (
        (Task.next_lookup_at > now) & (Task.next_lookup_at <= now + _SOON),
        Task.created_at <= now - SOONEST,
        Task.looked_at.is_null() | (Task.looked_at <= now - APART),
    )


def claim_these(service: str, ids: Collection[str], now: datetime, lease: timedelta) -> Claim:
    """Take those of a service's tasks about which upstream has not said the last word, due or not.

    Tasks that somebody asks about, and those whose id upstream refuses, are left out.
    """
    until = now + lease
    is_open = fn.COALESCE(Task.lookup_status, PENDING).not_in(FINAL) & Task.refused_at.is_null()
    ours = Task.select(Task.id).where(
        Task.id.in_(ids), Task.service == service, unleased(now, absurd_lease(now, lease)), is_open
    )
    taken = Task.update(next_lookup_at=until, leased_until=until).where(Task.id.in_(_unlocked(ours)))
    with writing():
        return Claim(tuple(taken.returning(*_CLAIMED)), until)


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


def _build_longest_due(kind: str, way: _Ways, *, now: Any, due_by: Any, absurd: Any, besides: Any) -> Any:
    due = Task.select(Task.next_lookup_at, Task.service).where(
        unleased(now, absurd), Task.service.in_(_asked_services()), *_is_due(kind, way, now, due_by)
    )
    if besides:
        due = due.where(Task.service.not_in(besides))
    return _unlocked(due.order_by(Task.next_lookup_at).limit(1))


def _build_claim(
    kind: str, way: _Ways, *, now: Any, due_by: Any, absurd: Any, service: Any, limit: Any, until: Any
) -> Any:
    # A task may be due while somebody asks about it: a callback came, or a person wants to know now.
    due = (
        Task.select(Task.id)
        .where(unleased(now, absurd), Task.service == service, *_is_due(kind, way, now, due_by))
        .order_by(Task.next_lookup_at)
        .limit(limit)
    )
    return (
        Task.update(next_lookup_at=until, leased_until=until)
        .where(Task.id.in_(_unlocked(due)))
        .returning(*_CLAIMED)
    )


_anything_due = Query(_build_anything_due)
_longest_due, _claim_some = (
    {(kind, way): Query(partial(build, kind, way)) for kind in (*_KINDS, "soon") for way in _Ways}
    for build in (_build_longest_due, _build_claim)
)
