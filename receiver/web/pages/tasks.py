"""The list of tasks with its filters, and its exports."""

from collections.abc import Callable, Iterator

from flask import Response, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from receiver.api_keys import TOKEN_NAME
from receiver.clock import utcnow
from receiver.ledger.reading import tally
from receiver.ledger.reading.listing import Found, TaskFilter, list_briefly, list_tasks
from receiver.ledger.reading.matching import count_matching
from receiver.upstream.results import STATUSES
from receiver.web import task_actions
from receiver.web.current import current_settings
from receiver.web.filters import FIELDS, SETTLERS, cursor, read_cursor, read_filter, read_query
from receiver.web.formatting import as_input
from receiver.web.offload import offload
from receiver.web.pages import exports
from receiver.web.pages.base import given, page_blueprint, with_query

blueprint = page_blueprint("task_pages")

_MOST_TASKS = 20
_MOST_EXPORTED_AT_ONCE = 200  # other requests are served between two pages of an export


@blueprint.get("/tasks")
def show_list() -> ResponseReturnValue:
    """Show the newest tasks that match the URL's filter: 200. 400: a bad filter."""
    query, now, path = given(FIELDS), utcnow(), url_for("task_pages.show_list")
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
        older=found.next and with_query(path, following | {"before": cursor(found.next)}),
        since=as_input(wanted.since),
        until=as_input(wanted.until),
        services=sorted(offload(tally.services_in_use) | ({wanted.service} if wanted.service else set())),
        keys=(*dict.fromkeys(key.name for key in current_settings().api_keys), TOKEN_NAME),
        statuses=STATUSES,
        settlers=SETTLERS,
        may_acknowledge=(wanted.disputed or wanted.acknowledged is False)
        and any(task.disputed and not task.acknowledged_at for task in found.tasks),
    )


@blueprint.get("/tasks.csv")
def export_csv() -> ResponseReturnValue:
    """Send all tasks that match the URL's filter as CSV: 200, streamed. 400: a bad filter."""
    return _download(exports.as_csv, "text/csv", "csv")


@blueprint.get("/tasks.jsonl")
def export_json_lines() -> ResponseReturnValue:
    """Send all tasks that match the URL's filter as JSON Lines: 200, streamed. 400: a bad filter."""
    return _download(exports.as_json_lines, "application/jsonl", "jsonl")


@blueprint.post("/tasks")
def acknowledge_listed() -> ResponseReturnValue:
    """Acknowledge the newest disputes that match the URL's filter, up to 1,000: 303 back to the list."""
    query = _whole_query()
    task_actions.acknowledge_listed(read_filter(query))
    return redirect(with_query(url_for("task_pages.show_list"), query), 303)


def _whole_query() -> dict[str, str]:
    """Return the URL's filter. Raises BadInput for a parameter that is none, as more tasks would be meant."""
    read_query(request.args, FIELDS, paging=())
    return given(FIELDS)


def _all_tasks(wanted: TaskFilter) -> Iterator[Found]:
    """Yield all tasks that match a filter, page by page. A page is read once the one before it was sent."""
    before = None
    while True:
        found: Found = offload(list_tasks, wanted, _MOST_EXPORTED_AT_ONCE, before)
        yield found
        if found.next is None:
            return
        before = found.next


def _download(form: Callable[[Iterator[Found]], Iterator[str]], mimetype: str, suffix: str) -> Response:
    lines = form(_all_tasks(read_filter(_whole_query())))
    name = f"backstop-tasks-{utcnow():%Y%m%d-%H%M%S}.{suffix}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(lines, mimetype=mimetype, headers=headers)
