"""The pages: the overview, a task, the runs. Server-rendered, and complete without scripts."""

from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, Response, render_template, request
from flask.typing import ResponseReturnValue

from receiver.ledger import queries, tally
from receiver.ledger.clock import to_iso, utcnow
from receiver.ledger.models import database
from receiver.ledger.pauses import current_pause
from receiver.ledger.results import STATUSES, is_storable
from receiver.web import contents, wording
from receiver.web.auth import require_api_key
from receiver.web.errors import BadInput
from receiver.web.reading import read
from receiver.web.settings import current_settings
from receiver.web.summary import Facts, next_run, summarise
from receiver.web.tasks import find_or_404
from receiver.web.timeline import timeline, versions

blueprint = Blueprint("pages", __name__)
blueprint.before_request(require_api_key)

_DAY = timedelta(days=1)
_MOST_TASKS = 50
_MOST_MISSED = 5
_MOST_UNREADABLE = 5
_MOST_RUNS = 100

_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' https: http:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

for _filter in (
    *(wording.exact, wording.ago, wording.took, wording.size, wording.counted, wording.shown, to_iso),
    *(wording.title, wording.trust, wording.next_lookup, contents.image_of, contents.problem_of),
    contents.printed,
):
    blueprint.add_app_template_filter(_filter)


@blueprint.get("/")
def overview() -> ResponseReturnValue:
    """Show how things stand and the newest tasks, or those asked for by ?status=, ?disputed or ?q=.

    200. 400 for a status that does not exist.
    """
    now, wanted = utcnow(), _wanted()
    with database.connection_context():
        counts = tally.count_by_status()
        facts = _facts(now, counts["pending"])
        shown = {
            "counts": counts,
            "disputed": tally.count_outcomes().disputed,
            "today": tally.count_outcomes(now.replace(hour=0)),
            "missed": queries.list_missed(_a_day_before(now), _MOST_MISSED),
            "tasks": read(queries.list_tasks, wanted, _MOST_TASKS),
            "unreadable": [
                delivery
                for delivery in queries.list_unreadable(_MOST_UNREADABLE)
                if delivery.received_at >= now - _DAY
            ],
        }
    return render_template("overview.html", now=now, wanted=wanted, facts=facts, **shown, **_in_words(facts))


@blueprint.get("/tasks/<text:task_id>")
def show_task(task_id: str) -> ResponseReturnValue:
    """Show all that is known of one task: 200, or 404 when we never heard of it."""
    with database.connection_context():
        task = find_or_404(task_id)
        deliveries, lookups = queries.deliveries_of(task.id), queries.lookups_of(task.id)
    return render_template(
        "task.html",
        now=utcnow(),
        task=task,
        contents=contents.contents_of(task),
        failure=contents.failure_of(task),
        response=contents.printed(task.response),
        request_body=contents.printed(task.request),
        deliveries=deliveries,
        lookups=lookups,
        events=timeline(task, deliveries, lookups),
        versions=versions(task),
    )


@blueprint.get("/runs")
def list_runs() -> ResponseReturnValue:
    """Show the newest runs of the reconciler: 200."""
    return render_template("runs.html", now=utcnow(), runs=queries.list_runs(_MOST_RUNS))


@blueprint.after_app_request
def protect(response: Response) -> Response:
    """Let a browser that shows an answer of ours load and do nothing beyond it, and keep no copy."""
    if response.mimetype == "text/html":
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    if request.endpoint not in {"static", "callbacks.receive"}:  # a program reads a callback's answer
        response.headers.update(_HEADERS)
    return response


def _wanted() -> queries.TaskFilter:
    status, text = request.args.get("status"), request.args.get("q", "").strip()
    if status is not None and status not in STATUSES:
        raise BadInput(f"There is no such status; there are {', '.join(STATUSES)}.")
    if not is_storable(text):
        raise BadInput("The search text holds a NUL or bytes that are not UTF-8.")
    disputed = True if "disputed" in request.args else None
    return queries.TaskFilter(status=status, disputed=disputed, text=text or None)


def _facts(now: datetime, pending: int) -> Facts:
    newest, oldest = queries.list_tasks(queries.TaskFilter(), 1), queries.oldest_pending()
    runs, last_day = queries.list_runs(1), tally.count_outcomes(_a_day_before(now))
    return Facts(
        now=now,
        interval=current_settings().reconcile_interval,
        newest_at=newest[0].created_at if newest else None,
        pending=pending,
        oldest_pending_at=oldest.created_at if oldest else None,
        expired=queries.count_given_up(now - _DAY),
        disputed=last_day.disputed,
        missed=last_day.missed,
        last_run=runs[0] if runs else None,
        last_asking_run=queries.last_asking_run(now - _DAY),
        reconciler_seen_at=queries.reconciler_seen_at(),
        pause=current_pause(now),
    )


def _a_day_before(now: datetime) -> datetime:
    # At the full hour, as the totals are kept: lists and totals must not contradict each other.
    return (now - _DAY).replace(minute=0, second=0, microsecond=0)


def _in_words(facts: Facts) -> dict[str, Any]:
    address = current_settings().public_url or request.host_url.rstrip("/")
    return {"summary": summarise(facts), "next_run": next_run(facts), "address": address}
