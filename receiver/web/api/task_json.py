"""Tasks, deliveries and look-ups as the API shows them."""

import json
from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Delivery, Lookup, Task


def task_json(task: Task) -> dict[str, Any]:
    """Return a task as the API shows it."""
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
    }


def lookup_json(lookup: Lookup) -> dict[str, Any]:
    """Return a look-up as the API shows it."""
    return {
        "id": lookup.id,
        "run": lookup.run_id,  # type: ignore[attr-defined]  # the stubs leave it out
        "asked_at": to_iso(lookup.asked_at),
        "answered_at": to_iso(lookup.answered_at),
        "verdict": lookup.verdict,
        "progress": lookup.progress,
        "error": lookup.error,
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as the API shows it, without headers and body."""
    return {
        "id": delivery.id,
        "received_at": to_iso(delivery.received_at),
        "verdict": delivery.verdict,
        "ref": delivery.ref,
        "remote_addr": delivery.remote_addr,
        "token": None if delivery.token is None else delivery.token + 1,
        "size": delivery.size,
        "sha256": bytes(delivery.digest).hex(),
    }


def loads(text: str | None) -> Any:
    return None if text is None else json.loads(text)
