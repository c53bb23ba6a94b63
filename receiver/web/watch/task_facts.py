"""The facts about tasks: what became of the recent ones, and how many are open, disputed or given up."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from receiver.ledger.reading import disputes, queries, recoveries
from receiver.ledger.reading.listing import TaskFilter, list_briefly
from receiver.ledger.reading.tally import Outcomes
from receiver.web.watch.facts import Facts, Missing

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
_LATELY = timedelta(hours=3)  # of which the share of missing callbacks is compared with that of the week


def with_tasks(known: Facts, week: Mapping[datetime, Outcomes], pending: int) -> Facts:
    """Add these facts. The counts of the week by hour and of open tasks were read before."""
    day = last_day(week, known.now)
    total, began = sum(day.values(), Outcomes()), min(day)
    newest = list_briefly(TaskFilter(), 1).tasks
    given_up, given_up_known_since = queries.given_up(known.now - DAY)
    return replace(
        known,
        newest_at=newest[0].created_at if newest else None,
        pending=pending,
        oldest_pending_at=queries.oldest_pending_at(),
        last_day=total,
        last_day_began=began,
        given_up=given_up,
        given_up_known_since=given_up_known_since,
        disputed=disputes.count_unacknowledged(began),
        knows_none=disputes.knows_none(known.now - DAY),
        slowest_recovery=recoveries.slowest_recovery(began) if total.missed else None,
        missing=_missing(week, known.now),
    )


def last_day(week: Mapping[datetime, Outcomes], now: datetime) -> dict[datetime, Outcomes]:
    """Return the last day's hours. The first is whole, so the day may be a bit longer."""
    return {hour: one for hour, one in week.items() if hour + HOUR > now - DAY}


def _missing(week: Mapping[datetime, Outcomes], now: datetime) -> Missing:
    lately = sum((one for hour, one in week.items() if hour + HOUR > now - _LATELY), Outcomes())
    total = sum(week.values(), Outcomes())
    return Missing(
        lately.missed, lately.settled, total.missed - lately.missed, total.settled - lately.settled
    )
