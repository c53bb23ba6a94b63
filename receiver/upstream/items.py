"""Gives tasks back to upstream's clients as upstream gives them: items of the Tasks API. Pure.

A few things differ on purpose. Our callback URL is taken out. Errors are objects. What runs and what is
finished has the form that the service's own clients understand (`forms.Form`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.clock import to_unix
from receiver.redact import MASK, mask_tokens, mask_tokens_within
from receiver.upstream.envelopes import OF_ITS_OWN_RESPONSE
from receiver.upstream.results import FINAL, SUCCEEDED, Unreadable, read_item
from receiver.upstream.services import Service

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows of a task. `response`, `request` and `envelope` are JSON texts as it keeps them.

    `callback_url` is the caller's own.
    """

    id: str
    status: str
    response: str | None = None
    request: str | None = None
    envelope: str | None = None
    callback_url: str | None = None
    type: str | None = None
    trace_id: str | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None


def item_of(known: Known, service: Service) -> Item:
    """Return a task that the ledger knows as upstream gives it, every field of the item.

    Where no item was kept, it is composed of what is known.
    """
    item = _own_form(known, service) or _with_envelope(known)
    return _presented(item, service, known.status, known.callback_url)


def presented(item: object, service: Service, callback_url: str | None = None) -> object:
    """Return an item that upstream has just given, as its clients get it.

    What is no task object comes back as it is, with callback tokens masked.
    """
    masked = mask_tokens_within(item)
    try:
        status = read_item(item).status
    except Unreadable:
        return masked
    return _presented(masked, service, status, callback_url)


def _own_form(known: Known, service: Service) -> Item | None:
    """Return the item of a service whose items are their own response; None for any other."""
    is_own = known.envelope == OF_ITS_OWN_RESPONSE or (known.envelope is None and service.form.is_flat)
    return _object(known.response) or None if is_own else None


def _with_envelope(known: Known) -> Item:
    item = _object(known.envelope) or _composed(known)
    for name, told in (("request", _object(known.request)), ("response", _object(known.response))):
        if told:
            item[name] = told
    return item


def _composed(known: Known) -> Item:
    told = {
        "id": known.id,
        "type": known.type,
        "trace_id": known.trace_id,
        "created_at": to_unix(known.submitted_at) if known.submitted_at else None,
        "finished_at": to_unix(known.finished_at) if known.finished_at else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _presented(item: Item, service: Service, status: str, callback_url: str | None) -> Item:
    item = dict(item)
    if isinstance(request := item.get("request"), dict):
        item["request"] = _as_sent(request, callback_url)
    if isinstance(response := item.get("response"), dict):
        item["response"] = with_error_object(response)
    if status in FINAL:
        return _added(item, service, status) | item
    if service.form.runs_empty:
        item["response"] = {}
    return item


def _as_sent(request: Item, callback_url: str | None) -> Item:
    """Return a request with the caller's own callback URL, or none, in place of ours."""
    ours = request.get("callback_url")
    if not isinstance(ours, str) or MASK not in mask_tokens(ours):
        return request
    rest = {name: value for name, value in request.items() if name != "callback_url"}
    return rest if callback_url is None else rest | {"callback_url": callback_url}


def id_and_trace_of(item: object) -> tuple[str | None, str | None]:
    """Return the names of a task object; None for one that it does not have."""
    try:
        result = read_item(item)
    except Unreadable:
        return None, None
    return result.task_id, result.trace_id


def with_error_object(answer: Item) -> Item:
    """Return an answer whose error, if it is a bare string, is an object: clients read its fields."""
    error = answer.get("error")
    if not isinstance(error, str) or not error:
        return answer
    return answer | {"error": {"code": "api_error", "message": error}}


def _added(item: Item, service: Service, status: str) -> Item:
    """Return the fields that the service's own clients wait for, beside the response."""
    response = item.get("response")
    if not isinstance(response, dict):
        return {}
    word = "succeeded" if status == SUCCEEDED else "failed"
    made = {"state": word, "status": word, "data": _first(response) | {"state": word}}
    told = {name: made.get(name, response.get(name)) for name in service.form.finished_adds}
    return {name: value for name, value in told.items() if value is not None}


def _first(response: Mapping[str, Any]) -> Item:
    data = response.get("data")
    first = data[0] if isinstance(data, list) and data else data
    return dict(first if isinstance(first, dict) else response)


def _object(text: str | None) -> Item:
    value = json.loads(text) if text else None
    return value if isinstance(value, dict) else {}
