"""POST /api/tasks registers submitted tasks. `registrations` parses them."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Conflict

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.models import Task
from receiver.ledger.reading.portions import load_briefly, load_first
from receiver.ledger.task_json import task_json
from receiver.web.api.registrations import read_json, read_registrations
from receiver.web.auth import key_of_request, require_api_key
from receiver.web.current import current_settings, current_timetable
from receiver.web.offload import offload

blueprint = Blueprint("registering", __name__, url_prefix="/api/tasks")
blueprint.before_request(require_api_key)


@blueprint.post("")
def register() -> ResponseReturnValue:
    """Register submitted tasks: one object, or {"tasks": [up to 1000]}.

    201 with the tasks and how many were new. After the first few MB the tasks come without their large
    fields. 400: a bad item, which the message names. 409: a task is known under another service. Then nothing
    is registered.
    """
    registrations = read_registrations(read_json('{"id": "..."}'), key_of_request())
    when = current_settings().forward_when
    try:
        created = store.register(registrations, utcnow(), timetable=current_timetable(), forward_when=when)
    except store.OtherService as problem:
        raise Conflict(str(problem)) from None
    items = offload(_items, [registration.id for registration in registrations])
    return jsonify({"items": items, "created": created}), 201


def _items(task_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return tasks as the API's JSON. Those after the first few MB lack their large fields."""
    whole = load_first(task_ids)
    rest = task_ids[len(whole) :]
    brief = load_briefly(rest)
    return [task_json(task) for task in whole] + [_without_large(brief[task_id]) for task_id in rest]


def _without_large(task: Task) -> dict[str, Any]:
    shown = task_json(task)
    return {name: shown[name] for name in shown if name not in {"request", "response", "error"}}
