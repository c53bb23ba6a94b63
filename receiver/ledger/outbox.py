"""The outbox: the events that the customer's app is told, in their order.

Triggers on `task` write each event in the transaction that changes the task, so no code can settle a task
without its event. An event never changes, and is kept as long as its task.

A reader pages by number. Once it has read an event, none with a lower number may appear. SQLite has one
writer at a time, so numbers appear in order. On PostgreSQL a transaction that took a lower number may commit
later. Therefore a reader first notes the greatest number that it sees, and which transactions hold the lock
that writing an event takes. It waits for these transactions to end, and then reads up to that number:

- A transaction that took a lower number had the lock before the greater number was committed. It keeps the
  lock until others can see what it wrote. So the reader either waits for it or sees its events.
- A transaction that takes the lock later gets a number above the noted one. So writers never wait for a
  reader. A reader waits neither for newcomers nor for transactions that write no events.
- No state is kept between two calls, nor in a session of the server. So this works with any number of
  readers, after a restart, on a restored dump and through a pooler in transaction mode.

A reader must ask the primary: a replica has its own locks.
"""

import time
from datetime import datetime
from typing import NamedTuple

from peewee import JOIN

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.engine.statements import Query, as_moment
from receiver.ledger.models import Event, Task, database

DISPUTED = "task.disputed"
# Upstream says the same as the callback that settled the task. It has the number of the event that it
# confirms, or the next one where the task has had several.
CONFIRMED = "task.confirmed"
# Our transactions take milliseconds. PostgreSQL ends one that hangs: we set its limits for statements and for
# idle transactions.
_WRITERS_WITHIN_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.005
_ANY = 2**63 - 1


class Told(NamedTuple):
    """An event, and what is known now of its task; None where that is deleted."""

    id: int
    task_id: str
    type: str
    status: str
    settled_by: str | None
    sequence: int
    service: str | None
    registered_at: datetime | None
    submitted_at: datetime | None
    finished_at: datetime | None
    settled_at: datetime | None
    task_settled_by: str | None


_events = Query(
    lambda cursor, newest, limit: (
        Event.select().where(Event.id > cursor, Event.id <= newest).order_by(Event.id).limit(limit)
    )
)


_told = Query(
    lambda cursor, newest, limit: (
        Event.select(
            *(Event.id, Event.task_id, Event.type, Event.status, Event.settled_by, Event.sequence),
            *(Task.service, Task.registered_at, Task.submitted_at, Task.finished_at),
            *(Task.settled_at, Task.settled_by),
        )
        .join(Task, JOIN.LEFT_OUTER, on=(Task.id == Event.task_id))
        .where(Event.id > cursor, Event.id <= newest)
        .order_by(Event.id)
        .limit(limit)
    )
)


def events_after(cursor: int, limit: int) -> list[Event]:
    """Return up to `limit` events whose numbers are greater than `cursor`, in their order.

    Begin with 0 and continue with the last one's `id`. Returns [] if there are none, and on PostgreSQL also
    while a transaction that has written events takes unusually long: ask again.
    """
    with database.connection_context():
        newest = _complete_up_to(cursor) if on_postgresql() else _ANY
        return _events.objects(Event, cursor=cursor, newest=newest, limit=limit)


def told_after(cursor: int, limit: int) -> list[Told]:
    """Return what `events_after` would, with their tasks. It takes a fraction of the time."""
    with database.connection_context():
        newest = _complete_up_to(cursor) if on_postgresql() else _ANY
        rows = _told.rows(cursor=cursor, newest=newest, limit=limit)
    return [Told._make([*row[:7], *map(as_moment, row[7:11]), row[11]]) for row in rows]


def _complete_up_to(cursor: int) -> int:
    """Return a number up to which no new event can appear, or `cursor` if none above it is known."""
    newest, writers = _newest_and_writers()
    deadline = time.monotonic() + _WRITERS_WITHIN_SECONDS
    while writers and newest > cursor:
        if time.monotonic() > deadline:
            return cursor
        time.sleep(_LOOK_AGAIN_SECONDS)
        writers &= _newest_and_writers()[1]
    return newest


def _newest_and_writers() -> tuple[int, set[str]]:
    # The locks are read after the rows. If a writer ends in between, the next statement sees what it wrote.
    newest, writers = database.execute_sql(_NEWEST_AND_WRITERS).fetchone()
    return newest, set(writers)


# Without our own session: it sees the events of its own transaction.
_NEWEST_AND_WRITERS = """
SELECT (SELECT COALESCE(MAX(id), 0) FROM event), ARRAY(
  SELECT virtualtransaction FROM pg_locks
  WHERE locktype = 'relation' AND relation = 'event'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pid IS DISTINCT FROM pg_backend_pid())
"""
