"""Which rows are old, by kind, and how some of them are deleted. `pruning` does it step by step.

Each kind is found by an index and walked in the index's order: a walk never reads again what it has passed,
neither rows that stay nor, on PostgreSQL, the dead entries of rows that are gone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

from peewee import SQL, fn

from receiver.ledger.choosing import ForwardFilter, find_next
from receiver.ledger.dealing import READER
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.engine.statements import Query, as_moment
from receiver.ledger.forward import DELIVERED, DISMISSED, RESENT
from receiver.ledger.models import (
    DELETED,
    DOUBTFUL,
    KNOWN,
    SETTLED,
    TALLY_KEY,
    UNACKNOWLEDGED,
    Delivery,
    Event,
    Forward,
    Incident,
    Lookup,
    Pause,
    Reader,
    ReconcileRun,
    Refusal,
    Resending,
    Submission,
    Tally,
    Task,
)
from receiver.upstream.results import EXPIRED, FINAL, PENDING

_AT_ONCE = 500  # rows to look at
_TASKS_AT_ONCE = 100  # with their results they may be large
_MOST_UNREAD = 10_000  # more cannot be looked through for each task
_EVER = datetime.min
# A part of the condition may be unknown, and NOT of that is unknown too.
_IS_UNACKNOWLEDGED = SQL(f"COALESCE({UNACKNOWLEDGED.sql}, FALSE)")


@dataclass(frozen=True, slots=True)
class Old:
    """The moments before which rows and ended tasks are old. With `tasks` None all tasks are kept."""

    rows: datetime
    tasks: datetime | None = None


class Portion(NamedTuple):
    """The ids of some old rows, maybe none, and the place to continue from; None at the end."""

    ids: list[Any]
    place: Any


class Kind(Protocol):
    """One kind of rows. `name` is what people call them."""

    @property
    def name(self) -> str: ...

    def find(self, old: Old, place: Any) -> Portion:
        """Return the next old rows after a place, which is None at first. Uses the caller's connection."""

    def delete(self, old: Old, ids: Sequence[Any]) -> int:
        """Delete those of the rows that may still go, in the caller's transaction. Return how many.

        Rows that another transaction has locked stay for now: nobody waits, so nobody can deadlock.
        """


def kinds_of(old: Old) -> Sequence[Kind]:
    """Return the kinds in the order in which they can go: what depends on a task before the task."""
    return _DATED if old.tasks is None else (*_DATED, *_WITH_TASKS)


class _Walk:
    """Reads rows from before a moment that meet the conditions, in the order of an index of `time` and id."""

    def __init__(self, model: Any, time: Any, *conditions: Any) -> None:
        self._model = model
        self._time = time
        self._conditions = conditions
        self._query = Query(self._build)

    def next(self, before: datetime, place: Any, limit: int) -> Portion:
        """Return the next ids after a place, which is None at first."""
        after = {} if place is None else {"time": place[0], "number": place[1]}
        rows = self._query.rows(before=before, limit=limit, **after)
        return Portion([row[1] for row in rows], rows[-1] if len(rows) == limit else None)

    def _build(self, before: Any, limit: Any, time: Any = None, number: Any = None) -> Any:
        query = self._model.select(self._time, self._model.id).where(self._time < before, *self._conditions)
        if time is not None:
            # The first condition is for the index; the second is exact.
            query = query.where(self._time >= time, (self._time > time) | (self._model.id > number))
        return query.order_by(self._time, self._model.id).limit(limit)


class _Dated:
    """Rows with a time that tells their age."""

    def __init__(self, name: str, model: Any, time: Any) -> None:
        self.name = name
        self._model = model
        self._walk = _Walk(model, time)

    def find(self, old: Old, place: Any) -> Portion:
        return self._walk.next(old.rows, place, _AT_ONCE)

    def delete(self, old: Old, ids: Sequence[Any]) -> int:
        return _delete(self._model, ids)


class _Pauses(_Dated):
    """Pauses that no longer prolong the wait for any task: one that is open, or settled and asked about."""

    def find(self, old: Old, place: Any) -> Portion:
        oldest = (as_moment(query.scalar()) for query in _oldest_asked)
        return self._walk.next(min([old.rows, *filter(None, oldest)]), place, _AT_ONCE)


@dataclass(frozen=True, slots=True)
class _Forwards:
    """Forwards of one status that have ended, with their attempts."""

    status: str
    name: str = "forwards"

    def find(self, old: Old, place: Any) -> Portion:
        some, beyond = find_next(ForwardFilter(status=self.status, until=old.rows), _AT_ONCE, place)
        removable = self._removable(some, old) if some else ()
        return Portion(sorted(forward.id for forward in removable), beyond)

    def delete(self, old: Old, ids: Sequence[Any]) -> int:
        free = _free(self._removable(ids, old))
        return int(Forward.delete().where(Forward.id.in_(free)).execute())

    def _removable(self, ids: Sequence[int], old: Old) -> Any:
        ended = Forward.select(Forward.id).where(
            Forward.id.in_(ids), Forward.status == self.status, Forward.ended_at < old.rows
        )
        return ended.where(~_is_any_other_kept()) if self.status == RESENT else ended


class _Tasks:
    """Ended tasks of one status, without rows that are kept and without events that are still to be told."""

    name = "tasks"

    def __init__(self, status: str) -> None:
        self.status = status
        # Its index holds no other column: rows that stay are read too, but only so many at once.
        self._walk = _Walk(Task, Task.created_at, Task.status == status)

    def find(self, old: Old, place: Any) -> Portion:
        if _many_unread.scalar(reader=READER, most=_MOST_UNREAD) is not None:
            return Portion([], None)
        assert old.tasks is not None
        some, beyond = self._walk.next(old.tasks, place, _TASKS_AT_ONCE)
        return Portion(self._removable(some, old, kept_since=old.rows) if some else [], beyond)

    def delete(self, old: Old, ids: Sequence[Any]) -> int:
        locked = [task.id for task in _free(Task.select(Task.id).where(Task.id.in_(ids)))]
        # Only now: what is read before the lock may change.
        removable = self._removable(locked, old, kept_since=_EVER)
        if not removable:
            return 0
        if self.status == EXPIRED:
            _count_expired(removable)
        return int(Task.delete().where(Task.id.in_(removable)).execute())

    def _removable(self, ids: Sequence[str], old: Old, kept_since: datetime) -> list[str]:
        """Return those of the tasks that may go. A task stays if a row about it came since `kept_since`."""
        # First: what is dealt with meanwhile has a forward, which the query sees.
        unread = _unread(ids)
        is_going = Forward.status.in_([DELIVERED, DISMISSED]) & (Forward.ended_at < kept_since)
        hanging = (
            Delivery.select(SQL("1")).where(Delivery.task == Task.id, Delivery.received_at >= kept_since),
            Lookup.select(SQL("1")).where(Lookup.task == Task.id, Lookup.asked_at >= kept_since),
            Forward.select(SQL("1")).where(Forward.task_id == Task.id, ~is_going),
        )
        query = Task.select(Task.id).where(
            Task.id.in_(ids),
            Task.status == self.status,
            fn.COALESCE(Task.settled_at, Task.gave_up_at) < old.tasks,
            Task.next_lookup_at.is_null(),  # else it is being asked about, or will be
            ~_IS_UNACKNOWLEDGED,
            *(~fn.EXISTS(rows) for rows in hanging),
        )
        return [task.id for task in query if task.id not in unread]


@dataclass(frozen=True, slots=True)
class _Orphans:
    """Rows about a task that has been deleted. They are walked by number: no index holds their task."""

    name: str
    model: Any
    time: Any

    def find(self, old: Old, place: Any) -> Portion:
        model = self.model
        query = model.select(model.id, model.task_id, self.time).where(model.id > (place or 0))
        rows = list(query.order_by(model.id).limit(_AT_ONCE).tuples())
        aged = {number: task_id for number, task_id, time in rows if time < old.tasks and task_id is not None}
        tasks = Task.select(Task.id).where(Task.id.in_(set(aged.values()))) if aged else ()
        known = {task.id for task in tasks}
        is_end = not any(time < old.tasks for _, _, time in rows)
        return Portion(
            [number for number, task_id in aged.items() if task_id not in known],
            None if is_end else rows[-1][0],
        )

    def delete(self, old: Old, ids: Sequence[Any]) -> int:
        return _delete(self.model, ids)


_DATED: Sequence[Kind] = (
    _Forwards(DELIVERED),
    _Forwards(DISMISSED),
    _Forwards(RESENT),  # after those that made up for them
    _Dated("deliveries", Delivery, Delivery.received_at),
    _Dated("look-ups", Lookup, Lookup.asked_at),
    _Dated("runs", ReconcileRun, ReconcileRun.started_at),
    _Pauses("pauses", Pause, Pause.ended_at),
    _Dated("refusals", Refusal, Refusal.last_at),
    _Dated("resendings", Resending, Resending.ended_at),
    _Dated("incidents", Incident, Incident.closed_at),
    _Dated("submissions", Submission, Submission.ended_at),
)
_WITH_TASKS: Sequence[Kind] = (
    *(_Tasks(status) for status in (*sorted(FINAL), EXPIRED)),
    _Orphans("events", Event, Event.happened_at),
    _Orphans("submissions", Submission, Submission.sent_at),
)


def _delete(model: Any, ids: Sequence[Any]) -> int:
    free = _free(model.select(model.id).where(model.id.in_(ids)))
    return int(model.delete().where(model.id.in_(free)).execute())


def _free(query: Any) -> Any:
    """Lock the rows, and leave out those that another transaction has locked. SQLite has one writer."""
    return query.for_update("FOR UPDATE SKIP LOCKED") if on_postgresql() else query


def _unread(ids: Sequence[str]) -> set[str]:
    """Return those of the tasks with an event that no forwards have been made of yet."""
    unread = Event.select(Event.task_id).where(Event.id > _place(READER), Event.task_id.in_(ids))
    return {event.task_id for event in unread}


def _place(reader: Any) -> Any:
    """Return the number of the last event that a reader has read, as a query."""
    return fn.COALESCE(Reader.select(Reader.event).where(Reader.name == reader), 0)


def _build_many_unread(reader: Any, most: Any) -> Any:
    """Find an event if more wait to be told than so many."""
    unread = Event.select(Event.id).where(Event.id > _place(reader)).order_by(Event.id)
    return unread.offset(most).limit(1)


_many_unread = Query(_build_many_unread)


def _build_oldest_asked(kind: Any) -> Any:
    # The expression keeps the database from walking all tasks from the oldest on: few are asked about.
    heard_of = fn.COALESCE(Task.created_at, Task.silent_since)
    return Task.select(fn.MIN(heard_of)).where(Task.next_lookup_at.is_null(False), *kind)


_oldest_asked = (
    Query(lambda: Task.select(fn.MIN(Task.created_at)).where(Task.status == PENDING)),
    *(Query(partial(_build_oldest_asked, kind)) for kind in ((SETTLED, KNOWN), (DOUBTFUL,))),
)


def _is_any_other_kept() -> Any:
    """Return the condition that another forward of the event is kept, and not only resent ones."""
    other, first = Forward.alias(), fn.COALESCE(Forward.resends, Forward.id)
    of_event = (other.id == first) | (other.resends == first)
    return fn.EXISTS(other.select(SQL("1")).where(of_event, other.status != RESENT))


def _count_expired(ids: Sequence[str]) -> None:
    """Count tasks that are about to be deleted among those of the past.

    The trigger `task_tally_deleted` does it for settled ones only.
    """
    expired = Task.select(Task.service, Task.callback_status, Task.lookup_status, Task.doubted_at)
    kinds = Counter((task.service, task.disputed) for task in expired.where(Task.id.in_(ids)))
    shard = SQL("pg_backend_pid()") if on_postgresql() else 0
    for (service, disputed), tasks in sorted(kinds.items()):
        told = {"hour": DELETED, "status": EXPIRED, "settled_by": "", "missed": False, "took": -1}
        row = {**told, "service": service, "disputed": disputed, "shard": shard, "tasks": tasks}
        update = {Tally.tasks: Tally.tasks + tasks}
        Tally.insert(row).on_conflict(conflict_target=TALLY_KEY, update=update).execute()
