"""The page about one task."""

from datetime import timedelta

from flask import redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.ledger.models import database
from receiver.ledger.paces import kind_of
from receiver.ledger.reading import disputes
from receiver.upstream.results import PENDING
from receiver.web import response_view, task_actions
from receiver.web.current import current_settings, current_timetable, stand_in
from receiver.web.formatting import usual_time
from receiver.web.pages.base import page_blueprint
from receiver.web.timeline import history_of, timeline, upstream_changed, versions
from receiver.web.watch.hindrances import hindrance_of

blueprint = page_blueprint("task_page")

_DAY = timedelta(days=1)


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


@blueprint.post("/tasks/<text:task_id>")
def ask_or_acknowledge(task_id: str) -> ResponseReturnValue:
    """Make a task due now, or with `do=acknowledge` acknowledge its dispute: 303 back to the task.

    404: we never heard of it. 409: it is not disputed.
    """
    if request.form.get("do") == "acknowledge":
        task_actions.acknowledge_or_409(task_id)
    else:
        task_actions.ask_or_404(task_id)
    return redirect(url_for("task_page.show_task", task_id=task_id), 303)
