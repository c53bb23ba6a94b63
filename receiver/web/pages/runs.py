"""The pages about the reconciler's runs: the list, and one run with its look-ups."""

import re
from datetime import datetime

from flask import render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import NotFound

from receiver.clock import utcnow
from receiver.ledger.models import database
from receiver.ledger.reading import queries
from receiver.ledger.reading.portions import load_briefly
from receiver.web.current import current_settings
from receiver.web.errors import BadInput
from receiver.web.pages.base import page_blueprint
from receiver.web.watch.facts import Facts
from receiver.web.watch.summary import next_run

blueprint = page_blueprint("run_pages")

_MOST_RUNS = 50
_MOST_LOOKUPS = 100
_MOST_DUE = 10_000  # counting stops here: a page must not read a million tasks
_LARGEST_ID = 2**63 - 1


@blueprint.get("/runs")
def list_runs() -> ResponseReturnValue:
    """Show the reconciler's newest runs, or those before the run `?before=`: 200. 400: a bad parameter.

    With `?asked=true`, show only runs that called upstream.
    """
    before, asked = _before(), request.args.get("asked")
    if asked not in (None, "true"):
        raise BadInput("asked must be true, or left out.")
    runs = queries.list_runs(_MOST_RUNS + 1, before, asked=asked is not None)
    now = utcnow()
    in_progress = [run for run in runs[:_MOST_RUNS] if run.is_in_progress(now)]
    facts = _facts(now)
    return render_template(
        "runs.html",
        now=now,
        next_run=next_run(facts),
        silent=facts.silent or facts.last_run is None,
        runs=runs[:_MOST_RUNS],
        in_progress=in_progress,
        still_due=queries.count_due(now, _MOST_DUE) if in_progress else 0,
        most_due=_MOST_DUE,
        asked=asked,
        before=before,
        older=runs[_MOST_RUNS - 1].id if len(runs) > _MOST_RUNS else None,
    )


@blueprint.get("/runs/<int:run_id>")
def show_run(run_id: int) -> ResponseReturnValue:
    """Show one run with its look-ups: 200. 404: it does not exist or was pruned."""
    before, now = _before(), utcnow()
    with database.connection_context():
        run = queries.find_run(run_id) if run_id <= _LARGEST_ID else None
        if run is None:
            raise NotFound(
                "No such run: there was none with this number, or it is so old that it was deleted."
            )
        in_progress = run.is_in_progress(now)
        still_due = queries.count_due(now, _MOST_DUE) if in_progress else 0
        lookups = queries.lookups_of_run(run_id, _MOST_LOOKUPS + 1, before)
        tasks = load_briefly([lookup.task_id for lookup in lookups])  # type: ignore[attr-defined]
    return render_template(
        "run.html",
        now=now,
        run=run,
        in_progress=in_progress,
        still_due=still_due,
        most_due=_MOST_DUE,
        lookups=lookups[:_MOST_LOOKUPS],
        tasks=tasks,
        before=before,
        older=lookups[_MOST_LOOKUPS - 1].id if len(lookups) > _MOST_LOOKUPS else None,
    )


def _facts(now: datetime) -> Facts:
    """Return what tells when the next run is due, and whether the reconciler is silent."""
    newest = queries.list_runs(1)
    return Facts(
        now=now,
        interval=current_settings().reconcile_interval,
        last_run=newest[0] if newest else None,
        reconciler_seen_at=queries.reconciler_seen_at(now),
    )


def _before() -> int | None:
    text = request.args.get("before")
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) > _LARGEST_ID:
        raise BadInput("before must be a number, as in the link to older entries.")
    return int(text)
