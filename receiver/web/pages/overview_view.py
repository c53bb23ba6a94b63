"""Reads what the overview shows: facts, recent tasks and deliveries, and the plots of a day or a week."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.config import Settings
from receiver.ledger.models import database
from receiver.ledger.reading import queries, recoveries, tally
from receiver.ledger.reading.deliveries import DeliveryFilter, list_deliveries
from receiver.ledger.reading.listing import TaskFilter, list_briefly
from receiver.ledger.reading.tally import Outcomes
from receiver.web.intake import Intake
from receiver.web.pages import plots
from receiver.web.watch.gathering import facts_of
from receiver.web.watch.task_facts import DAY, WEEK, last_day
from receiver.web.writes import Writes

MOST_RECOVERED = 500
_MOST_TASKS = 10
_MOST_UNREADABLE = 5


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


def read_overview(now: datetime, settings: Settings, intake: Intake, writes: Writes) -> dict[str, Any]:
    """Return what the overview shows of the ledger, by the names in its template."""
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
            "lateness": plots.plot_lateness(recoveries.lateness(MOST_RECOVERED)),
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
