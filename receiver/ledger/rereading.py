"""Reads stored deliveries again, after a parser was mended: their bytes go through the same door as at first.

What they say joins what is known, as when they came. So their order does not matter, they may be read any
number of times, and a reading that was stopped can begin again anywhere. What a witness has said stays said:
a delivery that now says less than before takes nothing back.
"""

import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from peewee import fn

from receiver.clock import utcnow
from receiver.ledger import evidence
from receiver.ledger.claims import locked
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Statement
from receiver.ledger.kinds import REREADING, CallbackRow
from receiver.ledger.merge import merge
from receiver.ledger.models import UNREADABLE, Delivery, Reading, Task, database
from receiver.ledger.record import Callback, apart, rows_of
from receiver.ledger.refusals import SHORTENED
from receiver.ledger.timetable import Timetable

log = logging.getLogger(__name__)

# One transaction holds so many deliveries and bytes, so that callbacks wait for some milliseconds only.
_AT_ONCE, _BYTES_AT_ONCE = 32, 2**22
_PLACES_AT_ONCE = 500
# Only a part of such a callback was kept.
_PARTIAL = {"incomplete", SHORTENED}
_READING = (Delivery.id, Delivery.verdict, Delivery.problem, Delivery.task, Delivery.first_reading)
_TOLD = (
    *(Task.id, Task.status, Task.callback_key, Task.callback_error, Task.ref, Task.trace_id, Task.service),
    fn.LENGTH(Task.callback_response),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which deliveries to read again: those that came from `since` to before `until`, oldest first.

    Without `verdicts` those of every verdict.
    """

    since: datetime
    until: datetime
    task: str | None = None
    verdicts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """How callbacks are read, as `record` takes it."""

    timetable: Timetable
    confirm: bool
    largest: int


@dataclass(frozen=True, slots=True)
class Reread:
    """What came of a portion. `reached` is when the last delivery that was looked at had come.

    `partial` deliveries stay as they are: only a part of their bytes was kept. `changes` counts those that
    are read differently now, by the verdicts before and after; `tasks` are those that they changed.
    """

    reached: datetime
    read: int = 0
    partial: int = 0
    tasks: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)


class _Change(NamedTuple):
    """A delivery that is read differently now."""

    delivery: int
    before: str
    after: str
    task_id: str | None


class _Read(NamedTuple):
    """How a delivery is read now, and what it says of its task."""

    reading: Reading
    said: CallbackRow | None


class _NotKept(Exception):
    """Rolls a transaction back."""


def reread(chosen: Chosen, rules: Rules, *, keep: bool = True) -> Iterator[Reread]:
    """Read the chosen deliveries again, and yield what came of each portion once it is durable.

    Without `keep` each portion is rolled back. Half of the time is left to others.
    """
    for reached, ids in _portions(chosen):
        began = time.monotonic()
        yield _read_again(reached, ids, rules, keep) if ids else Reread(reached)
        time.sleep(time.monotonic() - began)


def _portions(chosen: Chosen) -> Iterator[tuple[datetime, list[int]]]:
    """Yield the moment that is reached and the ids to read in one transaction, of which there may be none."""
    place = (chosen.since, 0)
    while places := _places(chosen, place):
        ids, size = [], 0
        for received_at, number, verdict, length in places:
            place = (received_at, number)
            if not chosen.verdicts or verdict in chosen.verdicts:
                ids.append(number)
                size += length
            if len(ids) == _AT_ONCE or size > _BYTES_AT_ONCE:
                yield received_at, ids
                ids, size = [], 0
        yield place[0], ids


def _places(chosen: Chosen, after: tuple[datetime, int]) -> list[Any]:
    """Return the next deliveries' times, ids, verdicts and lengths. Some of them may not be chosen."""
    received_at, number = after
    behind = (Delivery.received_at > received_at) | (Delivery.id > number)
    query = (
        Delivery.select(Delivery.received_at, Delivery.id, Delivery.verdict, fn.LENGTH(Delivery.body))
        .where(Delivery.received_at >= received_at, Delivery.received_at < chosen.until, behind)
        .order_by(Delivery.received_at, Delivery.id)
        .limit(_PLACES_AT_ONCE)
    )
    if chosen.verdicts == {"unreadable"}:
        query = query.where(UNREADABLE)  # has an index of its own
    if chosen.task is not None:
        query = query.where(Delivery.task == chosen.task)
    with database.connection_context():
        return list(query.tuples())


def _read_again(reached: datetime, ids: Sequence[int], rules: Rules, keep: bool) -> Reread:
    with database.connection_context():
        deliveries: list[Delivery] = list(Delivery.select().where(Delivery.id.in_(ids)))
    now = utcnow()
    read = {delivery.id: _read(delivery, rules, now) for delivery in deliveries if _is_whole(delivery)}
    tasks, changes = _written(read, now, keep)
    for change in changes if keep else ():
        words = "Task %s: delivery %d, which was %s, is read as %s now."
        log.info(words, change.task_id, *change[:3], extra={"task": change.task_id})
    verdicts = Counter((change.before, change.after) for change in changes)
    return Reread(reached, len(read), len(deliveries) - len(read), tasks, verdicts)


def _written(read: Mapping[int, _Read], now: datetime, keep: bool) -> tuple[int, list[_Change]]:
    tasks, changes = 0, list[_Change]()
    with contextlib.suppress(_NotKept), writing():
        tasks, changes = _write(read, now)
        if not keep:
            raise _NotKept
    return tasks, changes


def _is_whole(delivery: Delivery) -> bool:
    code = json.loads(delivery.problem)["code"] if delivery.problem else None
    return len(delivery.body) == delivery.size and code not in _PARTIAL


def _read(delivery: Delivery, rules: Rules, now: datetime) -> _Read:
    callback = Callback(
        body=bytes(delivery.body),
        size=delivery.size,
        ref=delivery.ref,
        headers=json.loads(delivery.headers),
        service=delivery.service,
        uid=delivery.uid or "",
    )
    task_id, row, said, _ = rows_of(callback, now, rules.timetable, rules.confirm, rules.largest)
    # A delivery that no longer names a task stays with its former one.
    reading = Reading(row["verdict"], row["problem"], task_id or delivery.task_id)  # type: ignore[attr-defined]
    return _Read(reading, said and evidence.of_rereading(said, delivery.received_at))


def _write(read: Mapping[int, _Read], now: datetime) -> tuple[int, list[_Change]]:
    """Join what was read with what is known. Return how many tasks change, and how deliveries change."""
    deliveries = _lock(list(read))
    readings = {delivery.id: read[delivery.id].reading for delivery in deliveries}
    said = [row for delivery in deliveries if (row := read[delivery.id].said)]
    both = (*readings.values(), *(delivery.reading for delivery in deliveries))
    ids = {reading.task_id for reading in both if reading.task_id is not None}
    before = _told_of(ids)
    # In id order, so that two writers cannot deadlock.
    for some in apart(sorted(said, key=lambda row: row["id"])):
        _merge.execute(some)
    changes = _note(deliveries, readings, now)
    after = _told_of(ids)
    return sum(before.get(task_id) != told for task_id, told in after.items()), changes


def _lock(ids: Sequence[int]) -> list[Delivery]:
    """Lock the deliveries that are still there, and leave out those that another transaction has locked.

    Another process reads those again, or deletes them. Nobody waits here, so tasks can be locked afterwards.
    """
    kept: Any = Delivery.select(*_READING).where(Delivery.id.in_(ids)).order_by(Delivery.id)
    return list(kept.for_update("FOR UPDATE SKIP LOCKED") if on_postgresql() else kept)


def _told_of(ids: set[str]) -> dict[str, tuple[Any, ...]]:
    """Return what callbacks have told of tasks, and lock them."""
    rows = locked(Task.select(*_TOLD).where(Task.id.in_(ids))).tuples()
    return {task_id: tuple(map(_comparable, told)) for task_id, *told in rows}


def _comparable(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value


def _note(deliveries: Sequence[Delivery], readings: Mapping[int, Reading], now: datetime) -> list[_Change]:
    """Write how deliveries are read now. Return those that are read differently."""
    changes: list[_Change] = []
    counted: Counter[str] = Counter()  # by how much a task's count of deliveries changes
    for delivery in deliveries:
        before, after = delivery.reading, readings[delivery.id]
        if after == before:
            continue
        changes.append(_Change(delivery.id, before.verdict, after.verdict, after.task_id))
        _change(delivery, after)
        counted.subtract([before.task_id] if before.task_id else [])
        counted.update([after.task_id] if after.task_id else [])
    Delivery.update(reread_at=now).where(Delivery.id.in_(list(readings))).execute()
    for task_id, more in sorted(counted.items()):
        Task.update(delivery_count=Task.delivery_count + more).where(Task.id == task_id).execute()
    return changes


def _change(delivery: Delivery, after: Reading) -> None:
    first = delivery.read_at_first
    changed = {
        "verdict": after.verdict,
        "problem": after.problem,
        "task": after.task_id,
        "first_reading": None if after == first else json.dumps(first._asdict()),
    }
    Delivery.update(changed).where(Delivery.id == delivery.id).execute()


_merge = Statement(partial(merge, REREADING))
