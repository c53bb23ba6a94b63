"""The outbox: what the customer's app is to be told, in the order in which readers may tell it.

Triggers on `task` write each event in the transaction that changes the task: no path can settle a task and
forget to tell. Events are kept, however old they are, and never change.

A reader pages by number, so an event must never appear below one that it has read. SQLite has one writer at a
time: numbers appear in their order. On PostgreSQL a transaction that took a lower number may commit later.
Therefore a reader first notes the greatest number that it sees, and which transactions hold the lock that
writing an event takes. It waits for these to end and then reads up to that number:

- A transaction that took a lower number had the lock before the greater number was committed. It keeps the
  lock until others can see what it wrote. So the reader either waits for it or sees its events.
- A transaction that takes the lock later gets a number above the noted one. So writers never wait for a
  reader. A reader waits neither for newcomers nor for transactions that write no events.
- Nothing is remembered between two calls, nor in a session of the server. So any number of readers, a
  restart, a restored dump and a pooler in transaction mode change nothing.

A reader must ask the primary: a replica has its own locks.
"""

import time

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import Event, database

DISPUTED = "task.disputed"
# Our transactions take milliseconds. One that hangs ends by our time limits for statements and idling.
_WRITERS_WITHIN_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.005


def events_after(cursor: int, limit: int) -> list[Event]:
    """Return up to `limit` events whose numbers are greater than `cursor`, in their order.

    Begin with 0 and go on with the last one's `id`. [] when there are none, and on PostgreSQL while a
    transaction that has written some takes unusually long: ask again.
    """
    with database.connection_context():
        query = Event.select().where(Event.id > cursor).order_by(Event.id).limit(limit)
        if on_postgresql():
            query = query.where(Event.id <= _complete_up_to(cursor))
        return list(query)


def _complete_up_to(cursor: int) -> int:
    """Return a number up to which no event can appear any more: `cursor` where none is known beyond it."""
    newest, writers = _newest_and_writers()
    deadline = time.monotonic() + _WRITERS_WITHIN_SECONDS
    while writers and newest > cursor:
        if time.monotonic() > deadline:
            return cursor
        time.sleep(_LOOK_AGAIN_SECONDS)
        writers &= _newest_and_writers()[1]
    return newest


def _newest_and_writers() -> tuple[int, set[str]]:
    # The locks are read after the rows: what a writer that ends in between wrote, the next statement sees.
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
