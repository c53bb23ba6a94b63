"""Counts the tasks that match a filter, from the tally: its cost does not grow with the number of tasks.

Those of one API key are counted in their index.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from peewee import fn

from receiver.ledger.models import DELETED, Tally, Task, database
from receiver.ledger.reading.listing import TaskFilter

# Older hours may have been folded into one row. Well below `schedule.TOTALS_BY_HOUR_FOR`.
_HOURS_ARE_APART_FOR = timedelta(days=7)


def count_matching(wanted: TaskFilter, now: datetime) -> int | None:
    """Return how many tasks match a filter; None when neither the tally nor the keys' index can answer it.

    The tally knows `service`, `status`, `settled_by`, `disputed` and `missed`, for whole hours.
    """
    if wanted.api_key is not None:
        return _count_of_key(wanted)
    if wanted.type is not None or wanted.text is not None or wanted.acknowledged is not None:
        return None
    if not all(_is_counted(moment, now) for moment in (wanted.since, wanted.until)):
        return None
    conditions = [
        getattr(Tally, name) == value
        for name in ("service", "status", "settled_by", "disputed", "missed")
        if (value := getattr(wanted, name)) is not None
    ]
    if wanted.since is not None:
        conditions.append(Tally.hour >= f"{wanted.since:%Y-%m-%d %H}")
    if wanted.until is not None:
        conditions.append(Tally.hour < f"{wanted.until:%Y-%m-%d %H}")
    query = Tally.select(fn.COALESCE(fn.SUM(Tally.tasks), 0)).where(Tally.hour != DELETED, *conditions)
    with database.connection_context():
        return int(query.scalar())


def _count_of_key(wanted: TaskFilter) -> int | None:
    if replace(wanted, api_key=None, since=None, until=None) != TaskFilter():
        return None
    query = Task.select().where(Task.api_key == wanted.api_key)
    if wanted.since is not None:
        query = query.where(Task.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Task.created_at < wanted.until)
    with database.connection_context():
        return int(query.count())


def _is_counted(moment: datetime | None, now: datetime) -> bool:
    if moment is None:
        return True
    is_whole = moment == moment.replace(minute=0, second=0, microsecond=0)
    return is_whole and moment > now - _HOURS_ARE_APART_FOR - timedelta(hours=1)
