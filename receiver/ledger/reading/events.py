"""Pages of events with their tasks, and what those who wait for news look at."""

from collections.abc import Collection

from peewee import fn

from receiver.ledger.models import Event, Task, database
from receiver.ledger.outbox import events_after
from receiver.ledger.reading.portions import load_each
from receiver.upstream.results import PENDING


def list_events(cursor: int, limit: int) -> list[tuple[Event, Task | None]]:
    """Return the events that follow `cursor`, each with its task as it is now, or None if that is deleted.

    A page ends by bytes too: a task counts for each of its events. See `events_after` for empty pages.
    """
    events = events_after(cursor, limit)
    return list(zip(events, load_each([event.task_id for event in events]), strict=False))


def newest_event() -> int:
    """Return the number of the newest event; 0 if there is none."""
    with database.connection_context():
        newest: int | None = Event.select(fn.MAX(Event.id)).scalar()
    return newest or 0


def no_longer_pending(task_ids: Collection[str]) -> set[str]:
    """Return those of the tasks that are settled or expired."""
    query = Task.select(Task.id).where(Task.id.in_(task_ids), Task.status != PENDING)
    with database.connection_context():
        return {task.id for task in query}
