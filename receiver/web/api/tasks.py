"""The task API: list, show, request a look-up, acknowledge. `registering` has the rest."""

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from receiver.clock import to_iso
from receiver.ledger.reading import listing
from receiver.ledger.task_json import task_json
from receiver.upstream.results import PENDING
from receiver.web.api.details_json import details_json
from receiver.web.api.registrations import read_json
from receiver.web.auth import require_api_key
from receiver.web.errors import BadInput
from receiver.web.filters import (
    FIELDS,
    cursor,
    read_cursor,
    read_filter,
    read_limit,
    read_query,
    read_wait,
)
from receiver.web.offload import offload
from receiver.web.task_actions import acknowledge_listed, acknowledge_or_409, ask_or_404, find_or_404
from receiver.web.waiting import current_waiting

blueprint = Blueprint("tasks", __name__, url_prefix="/api/tasks")
blueprint.before_request(require_api_key)


@blueprint.get("")
def list_tasks() -> ResponseReturnValue:
    """List tasks, newest first: 200 with a page and the next page's cursor. 400: a bad parameter."""
    arguments = read_query(request.args, FIELDS)
    wanted, before = read_filter(arguments), read_cursor(arguments.get("before"))
    found = offload(listing.list_tasks, wanted, read_limit(arguments.get("limit", "50")), before)
    following = found.next and cursor(found.next)
    return jsonify({"items": [task_json(task) for task in found.tasks], "next": following})


@blueprint.get("/<text:task_id>")
def show_task(task_id: str) -> ResponseReturnValue:
    """Show a task with its newest deliveries, look-ups and forwards, and its timeline.

    With `wait` it answers as soon as the task is no longer pending, or after so many seconds. 400: a bad
    parameter. 404: we never heard of the task.
    """
    seconds = read_wait(read_query(request.args, (), paging=("wait",)).get("wait"))
    task = find_or_404(task_id)
    if seconds and task.status == PENDING:
        current_waiting().until_settled(task_id, seconds)
        task = find_or_404(task_id)
    return jsonify(task_json(task) | details_json(task))


@blueprint.post("/<text:task_id>/reconcile")
def ask_now(task_id: str) -> ResponseReturnValue:
    """Make a task due now: 202, and the reconciler's next run asks about it. 404: we never heard of it."""
    return jsonify({"id": task_id, "next_lookup_at": to_iso(ask_or_404(task_id))}), 202


@blueprint.post("/<text:task_id>/acknowledge")
def acknowledge(task_id: str) -> ResponseReturnValue:
    """Acknowledge a task's dispute: 200 with the task. This is idempotent.

    404: we never heard of the task. 409: it is not disputed.
    """
    return jsonify(task_json(acknowledge_or_409(task_id)))


@blueprint.post("/acknowledge")
def acknowledge_some() -> ResponseReturnValue:
    """Acknowledge the newest disputes that match the query's filter, up to 1,000: 200 with their number.

    `more` tells whether others remain. 400: a bad parameter, or a filter in the body: to overlook it would
    acknowledge all disputes. 413: the body is too large.
    """
    has_body = request.content_length or "Transfer-Encoding" in request.headers
    if has_body and read_json("{}") != {}:
        raise BadInput("Put the filter into the URL, as in /api/tasks/acknowledge?since=2026-01-31T12:00Z.")
    acknowledged, more = acknowledge_listed(read_filter(read_query(request.args, FIELDS, paging=())))
    return jsonify({"acknowledged": acknowledged, "more": more})
