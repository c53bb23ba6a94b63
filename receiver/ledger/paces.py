"""What is learned of how long tasks take. One process at a time writes it, and all read it.

It is learned from the outbox: each first event of a settled task is a result. So no writer of tasks needs to
know about it, and nothing is counted twice.
"""

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import takewhile

from receiver.clock import SKEW
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import Event, LearnedPace, Task, database
from receiver.ledger.outbox import CONFIRMED, events_after
from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.readers import go_on, place_of
from receiver.ledger.timetable import Timetable

_NAME = "paces"  # of our place in the outbox
_AT_ONCE = 500
_READ_EVERY_SECONDS = 30.0
# By then a look-up has confirmed the result, and told when upstream began and finished the task.
_CONFIRMED_WITHIN = timedelta(seconds=10)
# Longer ones tell about outages, not about the kind of task.
_LONGEST = timedelta(days=2)
# Callers may name any type.
_MOST_KINDS = 1000
_learned = Query(LearnedPace.select)


class Paces:
    """The paces as this process has last read them. Safe to share between threads."""

    def __init__(self, grace: timedelta) -> None:
        self.timetable = Timetable(grace)

    def read(self) -> None:
        """Read the paces anew. Raises the database's errors; the old ones then stay."""
        with database.connection_context():
            rows: list[LearnedPace] = _learned.objects(LearnedPace)
        known = {kind_of(row): Pace(tuple(json.loads(row.weights))) for row in rows}
        self.timetable = Timetable(self.timetable.grace, known)


def read_while_running(paces: Paces) -> None:
    """Start a daemon thread that reads the paces now and twice a minute."""

    def work() -> None:
        while True:
            with contextlib.suppress(*DATABASE_ERRORS):  # others report the database's problem
                paces.read()
            time.sleep(_READ_EVERY_SECONDS)

    threading.Thread(target=work, name="paces", daemon=True).start()


def learn(now: datetime) -> int:
    """Learn from the results since the last time, and return how many tasks they are of.

    If two processes call it at once, the work of one is dropped.
    """
    learned = 0
    while True:
        after = place_of(_NAME)
        events = _ripe(events_after(after, _AT_ONCE), now)
        if not events:
            return learned
        lengths = _lengths(events)
        with writing():
            if not go_on(_NAME, after, events[-1].id):
                return learned
            _add(lengths, now)
        learned += sum(len(seconds) for kind, seconds in lengths.items() if not kind.type)


def _ripe(events: Sequence[Event], now: datetime) -> list[Event]:
    """Return the first events, as far as they are old enough."""

    def is_ripe(event: Event) -> bool:
        is_wrong = event.happened_at > now + SKEW  # by a clock that is ahead
        return event.happened_at <= now - _CONFIRMED_WITHIN or is_wrong

    return list(takewhile(is_ripe, events))


def _lengths(events: Iterable[Event]) -> Mapping[TaskKind, list[float]]:
    """Return how many seconds each task took, by its kind and the wider ones."""
    ids = [event.task_id for event in events if event.sequence == 1 and event.type != CONFIRMED]
    columns = (Task.id, Task.service, Task.type, Task.mode, Task.registered_at, Task.submitted_at)
    ends = (Task.finished_at, Task.settled_at, Task.settled_by)
    with database.connection_context():
        tasks = {task.id: task for task in Task.select(*columns, *ends).where(Task.id.in_(ids))}
    lengths: Mapping[TaskKind, list[float]] = defaultdict(list)
    for task in (tasks[task_id] for task_id in ids if task_id in tasks):
        length = _length_of(task)
        if length is not None and timedelta(0) < length < _LONGEST:
            for kind in kind_of(task).wider:
                lengths[kind].append(length.total_seconds())
    return lengths


def kind_of(row: Task | LearnedPace) -> TaskKind:
    """Return the kind of a task, as far as that is known, or of a pace."""
    return TaskKind(row.service, row.type or "", row.mode or "")


def _length_of(task: Task) -> timedelta | None:
    """Return how long upstream worked on a task; None where nobody knows."""
    began_at = task.submitted_at or task.registered_at
    # A look-up tells only that the task finished before it.
    ended_at = task.finished_at or (task.settled_at if task.settled_by == "callback" else None)
    return ended_at - began_at if began_at and ended_at else None


def _add(lengths: Mapping[TaskKind, list[float]], now: datetime) -> None:
    known = {kind_of(row): row for row in _learned.objects(LearnedPace)}
    for kind, seconds in sorted(lengths.items()):
        row = known.get(kind)
        if row is None and len(known) >= _MOST_KINDS:
            continue
        before = Pace(tuple(json.loads(row.weights))) if row else Pace()
        weights = json.dumps([round(weight, 4) for weight in before.with_results(seconds).weights])
        if row:
            LearnedPace.update(weights=weights, learned_at=now).where(LearnedPace.id == row.id).execute()
        else:
            known[kind] = LearnedPace.create(**kind._asdict(), weights=weights, learned_at=now)
