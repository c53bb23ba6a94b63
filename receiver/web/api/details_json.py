"""The API's JSON of one task's details: deliveries, look-ups, forwards and the timeline."""

from typing import Any

from receiver.clock import to_iso
from receiver.ledger.models import Delivery, Lookup, Task
from receiver.ledger.task_json import loads
from receiver.redact import mask_credentials
from receiver.web.api.forward_json import forward_json
from receiver.web.timeline import Event, history_of, timeline, versions


def details_json(task: Task) -> dict[str, Any]:
    """Return what is shown of one task beside what lists show of it."""
    history = history_of(task)
    return {
        "deliveries": [delivery_json(one) | {"duplicate": one.duplicate} for one in history.deliveries],
        "lookups": [lookup_json(lookup) for lookup in history.lookups],
        "callback_url": task.callback_url and mask_credentials(task.callback_url),
        "forwards": [forward_json(forward) for forward in history.forwards],
        "timeline": [_event_json(event, task) for event in timeline(task, history)],
    }


def _event_json(event: Event, task: Task) -> dict[str, Any]:
    shown = {"at": to_iso(event.at), "event": event.name, "detail": event.detail}
    if event.name != "disputed":
        return shown
    told = {
        version.witness: {"status": version.status, "response": loads(version.response)}
        for version in versions(task)
    }
    return {**shown, "versions": told}


def lookup_json(lookup: Lookup) -> dict[str, Any]:
    """Return a look-up as the API's JSON."""
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
    """Return a delivery as the API's JSON, without headers and body."""
    return {
        "id": delivery.id,
        "received_at": to_iso(delivery.received_at),
        "verdict": delivery.verdict,
        "ref": delivery.ref,
        "remote_addr": delivery.remote_addr,
        "token": None if delivery.token is None else delivery.token + 1,
        "size": delivery.size,
        "sha256": bytes(delivery.digest).hex(),
        "reread_at": to_iso(delivery.reread_at),
        "first_verdict": delivery.read_at_first.verdict,
    }


def listed_delivery_json(delivery: Delivery) -> dict[str, Any]:
    """Return a delivery as the API's JSON, with its task and with what is wrong with it."""
    problem = loads(delivery.problem)
    return delivery_json(delivery) | {"task_id": delivery.task_id, "problem": problem}  # type: ignore[attr-defined]
