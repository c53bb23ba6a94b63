"""Why the reconciler cannot ask now, about a task or at all."""

from datetime import datetime, timedelta

from receiver.ledger.models import Task
from receiver.ledger.pauses import current_pause
from receiver.ledger.reading import queries
from receiver.web.watch.facts import Facts
from receiver.web.watch.summary import hindrance


def absence_now(now: datetime, interval: timedelta) -> str | None:
    """Return why no reconciler, which runs so often, is at work; None if one is."""
    return hindrance(Facts(now=now, interval=interval, reconciler_seen_at=queries.reconciler_seen_at(now)))


def hindrance_of(task: Task, now: datetime, interval: timedelta) -> str | None:
    """Return why the reconciler, which runs so often, cannot ask about a task now; None if it can."""
    pause, seen_at = current_pause(now, task.service), queries.reconciler_seen_at(now)
    return hindrance(Facts(now=now, interval=interval, pause=pause, reconciler_seen_at=seen_at))
