"""The overview: the state of the service, plots of the last day or week, and the newest tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flask import render_template, request
from flask.typing import ResponseReturnValue

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger.models import database
from receiver.ledger.reading import queries, recoveries, tally
from receiver.ledger.reading.deliveries import DeliveryFilter, list_deliveries
from receiver.ledger.reading.forwards import MOST_COUNTED
from receiver.ledger.reading.listing import TaskFilter, list_briefly
from receiver.ledger.reading.tally import Outcomes
from receiver.web.current import current_settings, current_timetable
from receiver.web.errors import BadInput
from receiver.web.intake import Intake, current_intake
from receiver.web.offload import offload
from receiver.web.pages import plots
from receiver.web.pages.base import page_blueprint
from receiver.web.watch.gathering import DAY, WEEK, facts_of, last_day
from receiver.web.watch.summary import next_run, summarise
from receiver.web.writes import Writes

blueprint = page_blueprint("overview")

_MOST_TASKS = 10
_MOST_UNREADABLE = 5
_MOST_RECOVERED = 500
# The spans of the plot by their names in the URL: title, and hours in each column.
_SPANS = {"24h": ("last 24 h", 1), "7d": ("last 7 days", 6)}


@dataclass(frozen=True, slots=True)
class _Lately:
    """What became of recent tasks, by the hour in which we first heard of them."""

    day: Mapping[datetime, Outcomes]
    week: Mapping[datetime, Outcomes]

    @property
    def last_day(self) -> Outcomes:
        return sum(self.day.values(), Outcomes())

    @property
    def last_week(self) -> Outcomes:
        return sum(self.week.values(), Outcomes())


@blueprint.get("/")
def show() -> ResponseReturnValue:
    """Show the overview: 200. `?span=7d` plots a week instead of a day. 400: another span."""
    span = request.args.get("span", "24h")
    if span not in _SPANS:
        raise BadInput(f"span must be one of {', '.join(_SPANS)}.")
    now, settings = utcnow(), current_settings()
    intake = current_intake()
    shown = offload(_read, now, settings, intake, intake.writes())
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
        most_recovered=_MOST_RECOVERED,
        public_url=settings.public_url,
        most_forwards=MOST_COUNTED,
        **shown,
    )


def _read(now: datetime, settings: Settings, intake: Intake, writes: Writes) -> dict[str, Any]:
    with database.connection_context():
        lately, ever = _lately(now), tally.count_outcomes()
        unreadable = DeliveryFilter(verdict="unreadable", since=now - DAY)
        return {
            "lately": lately,
            "ever": ever,
            "facts": facts_of(now, settings, intake, writes, lately.week, ever.pending),
            "old_tokens": _old_tokens(settings),
            "tasks": list_briefly(TaskFilter(), _MOST_TASKS).tasks,
            "lengths": plots.plot_lengths(tally.count_by_length(min(lately.day))),
            "lateness": plots.plot_lateness(recoveries.lateness(_MOST_RECOVERED)),
            "unreadable": list_deliveries(unreadable, _MOST_UNREADABLE).deliveries,
            "ever_unreadable": bool(list_deliveries(DeliveryFilter(verdict="unreadable"), 1).deliveries),
        }


def _lately(now: datetime) -> _Lately:
    # Tasks are counted by the hour, so the day and the week start with a whole hour and may be a bit longer.
    week = tally.count_by_hour(now - WEEK, now)
    return _Lately(last_day(week, now), week)


def _old_tokens(settings: Settings) -> list[tuple[int, datetime | None]]:
    """Return each older callback token's position in CALLBACK_TOKEN, from 1, and when it was last used."""
    used = queries.old_tokens_used_at()
    return [(place + 1, used.get(place)) for place in range(1, len(settings.callback_tokens))]
