"""How many tasks a filter holds, where the tally knows: it costs the same however many tasks there are."""

from datetime import datetime, timedelta

from peewee import fn

from receiver.ledger.models import Tally, database
from receiver.ledger.reading.listing import TaskFilter

# Hours before that may have been folded into one row. Well below `schedule.TOTALS_BY_HOUR_FOR`.
_HOURS_ARE_APART_FOR = timedelta(days=7)


def count_matching(wanted: TaskFilter, now: datetime) -> int | None:
    """Return how many tasks a filter holds; None where only the tasks themselves could tell.

    The tally knows service, status, settler, dispute and whether the callback came, by whole hours.
    """
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
    query = Tally.select(fn.COALESCE(fn.SUM(Tally.tasks), 0))
    if conditions:
        query = query.where(*conditions)
    with database.connection_context():
        return int(query.scalar())


def _is_counted(moment: datetime | None, now: datetime) -> bool:
    if moment is None:
        return True
    is_whole = moment == moment.replace(minute=0, second=0, microsecond=0)
    return is_whole and moment > now - _HOURS_ARE_APART_FOR - timedelta(hours=1)
