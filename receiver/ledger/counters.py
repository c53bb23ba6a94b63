"""Counters for monitors: how often something has happened. Pruning does not lower them.

Triggers add to the table `counter` when a delivery, an attempt, a run, a pause or a refusal is written.
`count` adds what the outbox tells, and logs each event once. On PostgreSQL each connection adds to rows of
its own (`shard`), so that no transaction waits for another. `fold` joins them.
"""

import logging
import math
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from peewee import fn

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.models import Counter, database
from receiver.ledger.outbox import CONFIRMED, DISPUTED, Told, told_after
from receiver.ledger.readers import go_on, place_of
from receiver.logs import log_lines

log = logging.getLogger(__name__)

READER = "counters"  # of our place in the outbox
# A web process does nothing else while it counts a portion. So portions are small, with rests between them.
_AT_ONCE = 100
_REST = 4  # times as long as a portion took
# Upper bounds of the histograms' buckets in seconds, inclusive. The last bucket has none.
BOUNDS = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)
RESULTS, DURATION, LATENESS = "results", "duration", "lateness"
_SUM = "sum"
_Sums = defaultdict[tuple[str, str], float]


def read_counters() -> dict[str, dict[tuple[str, ...], float]]:
    """Return the value of each counter, by its name and its labels."""
    query = Counter.select(Counter.name, Counter.labels, fn.SUM(Counter.value)).group_by(
        Counter.name, Counter.labels
    )
    with database.connection_context():
        rows: list[Any] = list(query.tuples())
    read: dict[str, dict[tuple[str, ...], float]] = {}
    for name, labels, value in rows:
        read.setdefault(name, {})[tuple(labels.split("/"))] = float(value)
    return read


def histogram(counted: Mapping[tuple[str, ...], float], label: str) -> tuple[list[float], float]:
    """Return the count in each bucket, and the sum of the seconds, of one label's part of a histogram."""
    counts = [counted.get((label, str(place)), 0.0) for place in range(len(BOUNDS) + 1)]
    return counts, counted.get((label, _SUM), 0.0)


def count() -> int:
    """Count the results that the outbox tells of since the last time. Return how many events were read.

    If two processes call it at once, the work of one is dropped.
    """
    read = 0
    while True:
        began = time.monotonic()
        events = _count_portion()
        read += len(events)
        if len(events) < _AT_ONCE:
            return read
        time.sleep(_REST * (time.monotonic() - began))


def _count_portion() -> list[Told]:
    """Count the next events and return them; none if another process has counted them meanwhile."""
    after = place_of(READER)
    events = told_after(after, _AT_ONCE)
    if not events:
        return []
    sums = _told_by(events)
    with writing():
        if not go_on(READER, after, events[-1].id):
            return []
        _add(sums)
    _log(events)
    return events


def fold() -> int:
    """Join the rows of all connections and return how many were joined."""
    query: Any = Counter.select(Counter.id).where(Counter.shard != 0)
    if on_postgresql():  # what is being added to waits for the next time: waiting could deadlock
        query = query.for_update("FOR UPDATE SKIP LOCKED")
    with writing():
        gone = Counter.delete().where(Counter.id.in_(query))
        rows = list(gone.returning(Counter.name, Counter.labels, Counter.value).tuples().execute())
        sums: _Sums = defaultdict(float)
        for name, labels, value in rows:
            sums[name, labels] += value
        _add(sums)
    return len(rows)


def _add(sums: _Sums) -> None:
    for name, labels in sorted(sums):  # in one order, so that two processes cannot deadlock
        value = sums[name, labels]
        Counter.insert(name=name, labels=labels, shard=0, value=value).on_conflict(
            conflict_target=[Counter.name, Counter.labels, Counter.shard],
            update={Counter.value: Counter.value + value},
        ).execute()


def _log(events: Iterable[Told]) -> None:
    log_lines(log, [(_words(event), {"task": event.task_id, "event": event.id}) for event in events])


def _words(event: Told) -> str:
    by = f", by {event.settled_by}" if event.settled_by else ""
    return f"Task {event.task_id}: {event.type.removeprefix('task.')}{by} (event {event.id})."


def _told_by(events: Iterable[Told]) -> _Sums:
    sums: _Sums = defaultdict(float)
    for event in events:
        if event.type != DISPUTED and event.service is not None:
            _count_event(event, sums)
    return sums


def _count_event(event: Told, sums: _Sums) -> None:
    by = event.settled_by or ""
    if event.type != CONFIRMED:
        sums[RESULTS, f"{event.service}/{event.status}/{by}"] += 1
    if event.settled_at is None or event.task_settled_by != by:
        return
    began_at = event.submitted_at or event.registered_at  # else nobody knows when it began
    if began_at is not None and event.type != CONFIRMED and event.sequence == 1:
        _observe(DURATION, by, began_at, event.settled_at, sums)
    # Only upstream says when it finished a task: of what a callback settled, with the confirmation.
    if event.finished_at is not None and (event.type == CONFIRMED) == (by == "callback"):
        _observe(LATENESS, by, event.finished_at, event.settled_at, sums)


def _observe(name: str, by: str, start: datetime, end: datetime, sums: _Sums) -> None:
    seconds = max((end - start).total_seconds(), 0.0)  # by two clocks
    sums[name, f"{by}/{bisect_left(BOUNDS, seconds)}"] += 1
    sums[name, f"{by}/{_SUM}"] += math.ceil(seconds * 1000) / 1000
