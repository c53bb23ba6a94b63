"""The task API: register, list, show, ask now."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Conflict, NotFound, RequestEntityTooLarge

from receiver.ledger import queries, store
from receiver.ledger.clock import from_iso, from_unix, to_iso, utcnow
from receiver.ledger.evidence import Registration
from receiver.ledger.listing import TaskFilter, find_ids
from receiver.ledger.listing import list_tasks as list_of_tasks
from receiver.ledger.models import Delivery, Lookup, Task
from receiver.ledger.portions import load_briefly, load_first
from receiver.ledger.redact import mask_tokens
from receiver.ledger.results import MAX_ID_LENGTH, clean_text, is_storable, parse_json
from receiver.web.auth import require_api_key
from receiver.web.deliveries import delivery_json
from receiver.web.errors import BadInput
from receiver.web.filters import FIELDS, cursor, read_cursor, read_filter, read_limit, refuse_unknown
from receiver.web.reading import read
from receiver.web.settings import current_settings
from receiver.web.stalls import stall_guard
from receiver.web.timeline import timeline, versions

blueprint = Blueprint("tasks", __name__, url_prefix="/api/tasks")
blueprint.before_request(require_api_key)

_MOST_TASKS = 1000


@blueprint.post("")
def register() -> ResponseReturnValue:
    """Take note of submitted tasks: one object, or {"tasks": [up to 1000]}.

    201 with the tasks and how many were new; when they are large, the later ones without what makes them so.
    400 when any item is bad, naming it; then none is registered.
    """
    body = _json_body()
    if isinstance(body, dict) and "tasks" in body:
        if not isinstance(body["tasks"], list) or len(body["tasks"]) > _MOST_TASKS:
            raise BadInput(f'"tasks" must be a list of at most {_MOST_TASKS} tasks.')
        registrations = [_registration(item, f"tasks[{i}]: ") for i, item in enumerate(body["tasks"])]
    else:
        registrations = [_registration(body, "")]
    created = store.register(registrations, utcnow(), grace=current_settings().reconcile_grace)
    items = read(_items, [registration.id for registration in registrations])
    return jsonify({"items": items, "created": created}), 201


@blueprint.get("")
def list_tasks() -> ResponseReturnValue:
    """List tasks, newest first: 200 with a page of them and the next one's cursor. 400: a bad parameter."""
    arguments = request.args.to_dict()
    refuse_unknown(arguments, FIELDS)
    wanted, before = read_filter(arguments), read_cursor(arguments.get("before"))
    found = read(list_of_tasks, wanted, read_limit(arguments.get("limit", "50")), before)
    following = found.next and cursor(found.next)
    return jsonify({"items": [task_json(task) for task in found.tasks], "next": following})


@blueprint.get("/<text:task_id>")
def show_task(task_id: str) -> ResponseReturnValue:
    """Show one task with its newest deliveries and look-ups and its timeline; 404 when there is none."""
    task = find_or_404(task_id)
    deliveries, lookups = queries.deliveries_of(task.id), queries.lookups_of(task.id)
    disputed = {
        version.witness: {"status": version.status, "response": _loads(version.response)}
        for version in versions(task)
    }
    shown = {
        "deliveries": [_delivery_json(delivery) for delivery in deliveries],
        "lookups": [_lookup_json(lookup) for lookup in lookups],
        "timeline": [
            {"at": to_iso(event.at), "event": event.name, "detail": event.detail}
            | ({"versions": disputed} if event.name == "disputed" else {})
            for event in timeline(task, deliveries, lookups)
        ],
    }
    return jsonify(task_json(task) | shown)


@blueprint.post("/<text:task_id>/reconcile")
def ask_now(task_id: str) -> ResponseReturnValue:
    """Make a task due at once: 202, the next run of the reconciler asks. 404 when we never heard of it."""
    now = utcnow()
    if not is_storable(task_id) or not store.ask_now(task_id, now):
        raise NotFound("No such task.")
    return jsonify({"id": task_id, "next_lookup_at": to_iso(now)}), 202


@blueprint.post("/<text:task_id>/acknowledge")
def acknowledge(task_id: str) -> ResponseReturnValue:
    """Note that a person has seen a task's dispute: 200 with the task, also when it was noted before.

    404 when we never heard of it, 409 when it is not disputed.
    """
    return jsonify(task_json(acknowledge_or_409(task_id)))


@blueprint.post("/acknowledge")
def acknowledge_some() -> ResponseReturnValue:
    """Acknowledge up to 1,000 disputes, the newest that the query's filter holds: 200 with how many it were.

    `more` tells whether others are left. 400: a bad parameter.
    """
    arguments = request.args.to_dict()
    if unknown := arguments.keys() - set(FIELDS):
        raise BadInput(f"Unknown parameter {min(unknown)!r}; there are {', '.join(sorted(FIELDS))}.")
    acknowledged, more = acknowledge_listed(read_filter(arguments))
    return jsonify({"acknowledged": acknowledged, "more": more})


def acknowledge_or_409(task_id: str) -> Task:
    """Acknowledge a task's dispute and return the task. 404 when there is none, 409 without a dispute."""
    find_or_404(task_id)
    store.acknowledge([task_id], utcnow())
    task = find_or_404(task_id)
    if not task.disputed:
        raise Conflict("This task is not disputed.")
    return task


def acknowledge_listed(wanted: TaskFilter) -> tuple[int, bool]:
    """Acknowledge the newest disputes that a filter holds; return how many, and whether there are more."""
    wanted = replace(wanted, disputed=None, acknowledged=False)
    task_ids, more = read(find_ids, wanted, _MOST_TASKS)
    return store.acknowledge(task_ids, utcnow()), more


def find_or_404(task_id: str) -> Task:
    """Return the task, or raise the 404 that says there is none."""
    task = queries.find_task(task_id) if is_storable(task_id) else None
    if task is None:
        raise NotFound("No such task: it was never registered, and no callback named it.")
    return task


def _items(task_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return tasks as the API shows them; those past the first few MB leave out what may be large."""
    whole = load_first(task_ids)
    rest = task_ids[len(whole) :]
    brief = load_briefly(rest)
    return [task_json(task) for task in whole] + [_without_large(brief[task_id]) for task_id in rest]


def _without_large(task: Task) -> dict[str, Any]:
    shown = task_json(task)
    return {name: shown[name] for name in shown if name not in {"request", "response", "error"}}


def task_json(task: Task) -> dict[str, Any]:
    """Return a task as the API shows it."""
    return {
        "id": task.id,
        "type": task.type,
        "ref": task.ref,
        "trace_id": task.trace_id,
        "status": task.status,
        "progress": task.progress,
        "settled_by": task.settled_by,
        "confirmed": task.confirmed,
        "disputed": task.disputed,
        "request": _loads(task.request),
        "response": _loads(task.response),
        "error": _loads(task.error),
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


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
    return delivery_json(delivery) | {"duplicate": delivery.duplicate}


def _lookup_json(lookup: Lookup) -> dict[str, Any]:
    return {
        "id": lookup.id,
        "run": lookup.run_id,  # type: ignore[attr-defined]  # the stubs leave it out
        "asked_at": to_iso(lookup.asked_at),
        "answered_at": to_iso(lookup.answered_at),
        "verdict": lookup.verdict,
        "progress": lookup.progress,
        "error": lookup.error,
    }


def _json_body() -> Any:
    limit = current_settings().max_body_bytes
    request.max_content_length = limit + 1  # a chunked body that is larger ends there, without an error
    too_large = RequestEntityTooLarge(f"The body is larger than {limit} bytes (MAX_BODY_BYTES).")
    try:
        with stall_guard.reading():
            body = request.get_data()
    except RequestEntityTooLarge:
        raise too_large from None
    if len(body) > limit:
        raise too_large
    try:
        return parse_json(body.decode())
    except ValueError:
        raise BadInput("The body must be JSON in UTF-8.") from None


def _registration(item: object, where: str) -> Registration:
    if not isinstance(item, dict):
        raise BadInput(f'{where}A task must be an object like {{"id": "..."}}.')
    names = ("id", "type", "ref", "trace_id", "submitted_at")
    if unknown := item.keys() - set(names):
        raise BadInput(f"{where}Unknown field {min(unknown)!r}; there are {', '.join(names)}.")
    if item.get("id") is None:
        raise BadInput(f"{where}The id is missing.")
    texts = {name: _text(item, name, where) for name in names[:-1] if item.get(name) is not None}
    return Registration(**texts, submitted_at=_moment(item.get("submitted_at"), where))


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    text = clean_text(item[name])
    if text is None:
        raise BadInput(
            f"{where}The {name} must be a string of 1-{MAX_ID_LENGTH} characters, no NUL or lone surrogate."
        )
    if mask_tokens(text) != text:
        raise BadInput(f"{where}The {name} holds a callback URL, whose token is a secret.")
    return text


def _moment(value: object, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = from_iso(value) if isinstance(value, str) else from_unix(value)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise BadInput(f"{where}The submitted_at must be like 2026-01-31T12:00:00Z, or Unix seconds.")
    return moment


def _loads(text: str | None) -> Any:
    return None if text is None else json.loads(text)
