"""Repairs times that a wrong clock wrote: those further in the future than a right clock could set them.

See "Clocks" in docs/design.md.
"""

from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Any

from peewee import Case, Select, fn

from receiver.clock import SKEW
from receiver.ledger import pauses
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import DISPUTED, DOUBTFUL, KNOWN, OPEN, SETTLED, ReconcileRun, Task, database
from receiver.upstream.results import EXPIRED, PENDING

# Another process may have a longer RECONCILE_LEASE than ours.
_LEASE_AT_LEAST = timedelta(hours=1)
_LONG_AGO = datetime(1970, 1, 1)
_AT_ONCE = 500
# All tasks that have a next look-up, by the index that holds them.
_SCHEDULED = (((OPEN, KNOWN), "known"), ((SETTLED, KNOWN), "known"), ((DOUBTFUL,), "doubtful"))


def absurd_lease(now: datetime, lease: timedelta) -> datetime:
    """Return the moment after which no lease ends that a right clock took."""
    return now + max(2 * lease, _LEASE_AT_LEAST)


def unleased(now: Any, absurd: Any) -> Any:
    """Return the condition that no process leases a task now.

    A lease that ends after `absurd` was taken by a clock that was ahead: ignore it.
    """
    return Task.leased_until.is_null() | (Task.leased_until <= now) | (Task.leased_until > absurd)


def mend_schedule(now: datetime, *, known: timedelta, doubtful: timedelta) -> int:
    """Make tasks due whose next look-up is further ahead than any schedule allows. Return how many.

    `known` and `doubtful` are the longest waits of the two kinds of tasks. When there are no such tasks, this
    costs one query that reads the ends of three indexes.
    """
    latest = {"known": now + known, "doubtful": now + doubtful}
    with database.connection_context():
        if not _is_any_later.scalar(**latest):
            return 0
    return sum(_make_due(kind, latest[name], now) for kind, name in _SCHEDULED)


def mend_after_future(now: datetime) -> int:
    """Undo the work of a reconciler whose clock was ahead. Return how many tasks are due again.

    That reconciler may have given tasks up too early, and its schedule is too late. Its runs get the present
    time as their start, so that this repair is not repeated until the wrong time has come.
    """
    pauses.end_early(now)
    with database.connection_context():
        newest: datetime | None = ReconcileRun.select(fn.MAX(ReconcileRun.started_at)).scalar()
    if newest is None or newest <= now + SKEW:
        return 0
    mended = _reopen(now) + mend_schedule(now, known=timedelta(0), doubtful=timedelta(0))
    ended = Case(None, [(ReconcileRun.finished_at.is_null(False), now)], None)
    with writing():
        ReconcileRun.update(started_at=now, finished_at=ended).where(
            ReconcileRun.started_at > now + SKEW
        ).execute()
    return mended


def _build_is_any_later(**latest: Any) -> Any:
    later = (
        fn.COALESCE(
            Task.select(fn.MAX(Task.next_lookup_at)).where(Task.next_lookup_at.is_null(False), *kind),
            _LONG_AGO,
        )
        > latest[name]
        for kind, name in _SCHEDULED
    )
    return Select([], [reduce(or_, later)]).bind(database)


_is_any_later = Query(_build_is_any_later)


def _make_due(kind: Any, latest: datetime, now: datetime) -> int:
    made = 0
    chosen = (
        Task.select(Task.id)
        .where(Task.next_lookup_at > latest, unleased(now, absurd_lease(now, timedelta(0))), *kind)
        .order_by(Task.next_lookup_at.desc())
        .limit(_AT_ONCE)
    )
    if on_postgresql():
        # Skip locked rows, so that we never wait.
        chosen = chosen.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # stubs know bool only
    portion = _AT_ONCE
    while portion == _AT_ONCE:  # in portions, as a long transaction would block callbacks
        with writing():
            portion = Task.update(**_due(now)).where(Task.id.in_(chosen)).execute()
        made += portion
    return made


def _reopen(now: datetime) -> int:
    """Reopen tasks that were given up or doubted at a time in the future."""
    early = (Task.gave_up_at > now + SKEW) | (Task.doubted_at > now + SKEW)
    reopened = 0
    for kind in (Task.status == EXPIRED, DISPUTED):
        while ids := _some_ids(kind, early):
            # Lock rows in id order, as every writer does, so that two writers cannot deadlock.
            ours = Task.select(Task.id).where(Task.id.in_(ids), early)
            if on_postgresql():
                ours = ours.order_by(Task.id.collate('"C"')).for_update()
            with writing():
                Task.update(**_due(now), **_not_given_up(now)).where(Task.id.in_(ours)).execute()
            reopened += len(ids)
    return reopened


def _some_ids(*conditions: Any) -> list[str]:
    # Read outside of the transaction: no index serves this query, so it may take long.
    query = Task.select(Task.id).where(*conditions).limit(_AT_ONCE)
    with database.connection_context():
        return [task.id for task in query]


def _due(now: datetime) -> dict[str, Any]:
    # The give-up clock starts at the last sign of life, so move one from the future to now.
    silent_since = Case(None, [(Task.silent_since > now, now)], Task.silent_since)
    return {"next_lookup_at": now, "leased_until": None, "silent_since": silent_since}


def _not_given_up(now: datetime) -> dict[str, Any]:
    doubted_at = Case(None, [(Task.doubted_at <= now + SKEW, Task.doubted_at)], None)
    status = Case(None, [(Task.status == EXPIRED, PENDING)], Task.status)
    return {"gave_up_at": None, "late_answers": None, "doubted_at": doubted_at, "status": status}
