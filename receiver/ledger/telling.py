"""What the customer's app is told of an event: pure.

With `confirmed`, nothing is told that only a callback says: anyone who knows the callback URL can forge one.
"""

import json
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from receiver.ledger.event_json import event_json
from receiver.ledger.kinds import BY_CALLBACK
from receiver.ledger.models import Event, Task
from receiver.ledger.outbox import CONFIRMED, DISPUTED
from receiver.upstream.results import FAILED, FINAL, PENDING, dump

When = Literal["confirmed", "settled"]


def told_as(event: Event, when: When) -> str | None:
    """Return the type that an event is told as; None if it is not told.

    A result is told when it is confirmed, or with `settled` as soon as it is known.
    """
    if event.type == CONFIRMED:
        return f"task.{event.status}"
    is_result = event.type != DISPUTED and event.status in FINAL
    if is_result and when == "confirmed" and event.confirmed is None:
        return None
    return str(event.type)


def body_for_app(event: Event, task: Task, when: When) -> bytes:
    """Return the body for an endpoint in FORWARD_URL. It has the task as it is now."""
    told = event_json(event, task)
    told["type"] = told_as(event, when)
    if when == "confirmed":
        told["data"]["task"] |= _facts_of_upstream(task)
        if task.lookup_status not in FINAL:
            told["data"]["task"] |= _without_callbacks(event)
    return dump(told).encode()


def body_in_upstreams_form(task: Task, when: When) -> bytes | None:
    """Return a result as upstream would have posted it; None without one."""
    status, response, error = task.lookup_status, task.lookup_response, task.lookup_error
    if status not in FINAL and when == "settled":
        status, response, error = task.callback_status, task.callback_response, task.callback_error
    if status not in FINAL:
        return None
    known = json.loads(response) if response else None
    body: dict[str, Any] = known if isinstance(known, dict) else {}
    # Handlers find their task by its id. Not every service repeats it in its answers.
    body.setdefault("task_id", task.id)
    body.setdefault("success", status != FAILED)
    trace_id = task.trace_id if when == "settled" else _facts_of_upstream(task).get("trace_id", task.trace_id)
    if trace_id is not None:
        body.setdefault("trace_id", trace_id)
    if status == FAILED and error:
        body.setdefault("error", json.loads(error))
    return dump(body).encode()


def _facts_of_upstream(task: Task) -> dict[str, Any]:
    """Return what upstream knows of the facts that only callbacks have told."""
    facts: dict[str, Any] = {}
    if task.trace_id_source == BY_CALLBACK:
        facts["trace_id"] = None
    if task.ref_source == BY_CALLBACK:
        facts["ref"] = _ref_in(task.request)
    return facts


def _ref_in(request: str | None) -> str | None:
    """Return the ref in the callback URL that a task was submitted with, as upstream repeats it."""
    submitted = json.loads(request) if request else None
    url = submitted.get("callback_url") if isinstance(submitted, dict) else None
    if not isinstance(url, str):
        return None
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        return None
    return path.partition("/callbacks/")[2].partition("/")[2] or None


def _without_callbacks(event: Event) -> dict[str, Any]:
    """Return the fields of a task that upstream has given no result of, without what callbacks say."""
    status = PENDING if event.status in FINAL else event.status
    fields = ("progress", "response", "error", "settled_by", "settled_at")
    return {"status": status} | dict.fromkeys(fields)
