"""The JSON of a task, for the API, exports and events."""

import json
from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Task


def task_json(task: Task) -> dict[str, Any]:
    """Return a task as the API's JSON."""
    return {
        "id": task.id,
        "service": task.service,
        "type": task.type,
        "ref": task.ref,
        "trace_id": task.trace_id,
        "status": task.status,
        "progress": task.progress,
        "settled_by": task.settled_by,
        "confirmed": task.confirmed,
        "disputed": task.disputed,
        "request": loads(task.request),
        "response": loads(task.response),
        "error": loads(task.error),
        "registered_at": to_iso(task.registered_at),
        "submitted_at": to_iso(task.submitted_at),
        "settled_at": to_iso(task.settled_at),
        "finished_at": to_iso(task.finished_at),
        "deliveries": task.delivery_count,
        "lookups": task.lookup_count,
        "next_lookup_at": to_iso(task.next_lookup_at),
        "last_lookup_error": task.last_lookup_error,
        "acknowledged_at": to_iso(task.acknowledged_at),
        "key": task.api_key,
    }


def loads(text: str | None) -> Any:
    """Return a stored JSON text as a value."""
    return None if text is None else json.loads(text)
