"""The pages about tasks: the list with filters and exports, and one task."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from urllib.parse import urlencode

from flask import Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from receiver.api_keys import TOKEN_NAME
from receiver.clock import utcnow
from receiver.ledger.models import database
from receiver.ledger.paces import kind_of
from receiver.ledger.reading import disputes, tally
from receiver.ledger.reading.listing import Found, TaskFilter, list_briefly, list_tasks
from receiver.ledger.reading.matching import count_matching
from receiver.upstream.results import PENDING, STATUSES
from receiver.web import response_view, task_actions
from receiver.web.current import current_settings, current_timetable, stand_in
from receiver.web.filters import FIELDS, SETTLERS, cursor, read_cursor, read_filter
from receiver.web.formatting import as_input, usual_time
from receiver.web.offload import offload
from receiver.web.pages import exports
from receiver.web.pages.base import page_blueprint
from receiver.web.timeline import history_of, timeline, upstream_changed, versions
from receiver.web.watch.hindrances import hindrance_of

blueprint = page_blueprint("task_pages")

_DAY = timedelta(days=1)
_MOST_TASKS = 20
_MOST_EXPORTED_AT_ONCE = 200  # other requests are served between two pages of an export


@blueprint.get("/tasks")
def show_list() -> ResponseReturnValue:
    """Show the newest tasks that match the URL's filter: 200. 400: a bad filter."""
    query, now = _query(), utcnow()
    wanted, before = read_filter(query), request.args.get("before")
    found = offload(list_briefly, wanted, _MOST_TASKS, read_cursor(before))
    # Whether the pages before this one were empty too: a search continues by itself until it finds something.
    none_yet = not found.tasks and (before is None or "none" in request.args)
    following = query | ({"none": "yet"} if none_yet else {})
    return render_template(
        "tasks.html",
        now=now,
        found=found,
        query=query,
        before=before,
        none_yet=none_yet,
        total=None if before else offload(count_matching, wanted, now),
        older=found.next and _link(following | {"before": cursor(found.next)}),
        since=as_input(wanted.since),
        until=as_input(wanted.until),
        services=sorted(offload(tally.services_in_use) | ({wanted.service} if wanted.service else set())),
        keys=(*(key.name for key in current_settings().api_keys), TOKEN_NAME),
        statuses=STATUSES,
        settlers=SETTLERS,
        may_acknowledge=(wanted.disputed or wanted.acknowledged is False)
        and any(task.disputed and not task.acknowledged_at for task in found.tasks),
    )


@blueprint.get("/tasks.csv")
def export_csv() -> ResponseReturnValue:
    """Send all tasks that match the URL's filter as CSV: 200, streamed. 400: a bad filter."""
    return _download(exports.as_csv(_all_tasks(read_filter(_query()))), "text/csv", "csv")


@blueprint.get("/tasks.jsonl")
def export_json_lines() -> ResponseReturnValue:
    """Send all tasks that match the URL's filter as JSON Lines: 200, streamed. 400: a bad filter."""
    return _download(exports.as_json_lines(_all_tasks(read_filter(_query()))), "application/jsonl", "jsonl")


@blueprint.get("/tasks/<text:task_id>")
def show_task(task_id: str) -> ResponseReturnValue:
    """Show everything that is known about one task: 200. 404: we never heard of it."""
    now = utcnow()
    with database.connection_context():
        task = task_actions.find_or_404(task_id)
        history = history_of(task)
        hindrance = hindrance_of(task, now, current_settings().reconcile_interval)
    return render_template(
        "task.html",
        now=now,
        task=task,
        contents=response_view.contents_of(task, stand_in()),
        failure=response_view.failure_of(task),
        response=response_view.printed(task.response),
        request_body=response_view.printed(task.request),
        history=history,
        usual_time=usual_time(kind_of(task), current_timetable()) if task.status == PENDING else None,
        events=timeline(task, history),
        versions=versions(task),
        changed=upstream_changed(history.lookups),
        knows_none=task.disputed and disputes.knows_none(now - _DAY),
        hindrance=hindrance,
    )


@blueprint.post("/tasks")
def acknowledge_listed() -> ResponseReturnValue:
    """Acknowledge the newest disputes that match the URL's filter, up to 1,000: 303 back to the list."""
    task_actions.acknowledge_listed(read_filter(_query()))
    return redirect(_link(_query()), 303)


@blueprint.post("/tasks/<text:task_id>")
def ask_or_acknowledge(task_id: str) -> ResponseReturnValue:
    """Make a task due now, or with `do=acknowledge` acknowledge its dispute: 303 back to the task.

    404: we never heard of it. 409: it is not disputed.
    """
    if request.form.get("do") == "acknowledge":
        task_actions.acknowledge_or_409(task_id)
    else:
        task_actions.ask_or_404(task_id)
    return redirect(url_for("task_pages.show_task", task_id=task_id), 303)


def _link(query: Mapping[str, str]) -> str:
    return f"{url_for('task_pages.show_list')}?{urlencode(query)}"


def _query() -> dict[str, str]:
    # Forms send empty fields too: drop them.
    return {name: text for name in FIELDS if (text := request.args.get(name, "").strip())}


def _all_tasks(wanted: TaskFilter) -> Iterator[Found]:
    """Yield all tasks that match a filter, page by page. A page is read once the one before it was sent."""
    before = None
    while True:
        found: Found = offload(list_tasks, wanted, _MOST_EXPORTED_AT_ONCE, before)
        yield found
        if found.next is None:
            return
        before = found.next


def _download(lines: Iterator[str], mimetype: str, suffix: str) -> Response:
    name = f"backstop-tasks-{utcnow():%Y%m%d-%H%M%S}.{suffix}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(lines, mimetype=mimetype, headers=headers)
