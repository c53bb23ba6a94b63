"""An event as the customer's app is told it."""

from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Event, Task
from receiver.ledger.task_json import task_json

# How we came to know the result, which each further look-up changes.
_NOT_TOLD = {"deliveries", "lookups", "next_lookup_at"}


def event_json(event: Event, task: Task | None) -> dict[str, Any]:
    """Return an event with its task as the task is now: it may have changed since the event.

    Of a task that has been deleted only the id is told.
    """
    shown = {"id": event.task_id} if task is None else task_json(task)
    told = {name: value for name, value in shown.items() if name not in _NOT_TOLD}
    return {
        "type": event.type,
        "timestamp": to_iso(event.happened_at),
        "data": {"sequence": event.sequence, "task": told},
    }
