"""The overview: the state of the service, plots of the last day or week, and the newest tasks."""

from flask import render_template, request
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.ledger.reading.forwards import MOST_COUNTED
from receiver.web.current import current_settings, current_timetable
from receiver.web.errors import BadInput
from receiver.web.intake import current_intake
from receiver.web.offload import offload
from receiver.web.pages import plots
from receiver.web.pages.base import page_blueprint
from receiver.web.pages.overview_view import MOST_RECOVERED, read_overview
from receiver.web.watch.summary import next_run, summarise

blueprint = page_blueprint("overview")

# The spans of the plot by their names in the URL: title, and hours in each column.
_SPANS = {"24h": ("last 24 h", 1), "7d": ("last 7 days", 6)}


@blueprint.get("/")
def show() -> ResponseReturnValue:
    """Show the overview: 200. `?span=7d` plots a week instead of a day. 400: another span."""
    span = request.args.get("span", "24h")
    if span not in _SPANS:
        raise BadInput(f"span must be one of {', '.join(_SPANS)}.")
    now, settings = utcnow(), current_settings()
    intake = current_intake()
    shown = offload(read_overview, now, settings, intake, intake.writes())
    lately, facts = shown["lately"], shown["facts"]
    hours, hours_a_slot = {"24h": lately.day, "7d": lately.week}[span], _SPANS[span][1]
    return render_template(
        "overview.html",
        now=now,
        since={"24h": min(lately.day), "7d": min(lately.week)},
        spans={name: title for name, (title, _) in _SPANS.items()},
        span=span,
        plot=plots.plot_by_time(hours, hours_a_slot),
        summaries=summarise(facts),
        next_run=next_run(facts),
        usual_lengths=plots.plot_usual_lengths(current_timetable()),
        grace=settings.reconcile_grace,
        most_recovered=MOST_RECOVERED,
        public_url=settings.public_url,
        most_forwards=MOST_COUNTED,
        **shown,
    )
