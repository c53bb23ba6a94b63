"""Gathers the facts that the notices are made from: one source for the overview, /readyz and the alerts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from receiver.config import Settings
from receiver.ledger.models import ReconcileRun
from receiver.ledger.pauses import current_pause, paused_services
from receiver.ledger.reading import disputes, queries, recoveries, tally
from receiver.ledger.reading.endpoints import forward_facts
from receiver.ledger.reading.listing import TaskFilter, list_briefly
from receiver.ledger.reading.standing import FAILING_AFTER_RUNS
from receiver.ledger.reading.tally import Outcomes
from receiver.ledger.unclear import unclear_facts
from receiver.web.intake import REFUSED_TOLD_FOR, Intake
from receiver.web.watch.facts import Facts, Missing
from receiver.web.watch.rooms import tightest_room
from receiver.web.writes import Writes

HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
# The newest one may be in progress, and several reconcilers may run.
_RUNS_WITH_CLOCK = 4
_LATELY = timedelta(hours=3)  # of which the share of missing callbacks is compared with that of the week


def gather_facts(now: datetime, settings: Settings, intake: Intake, writes: Writes) -> Facts:
    """Return the facts of this moment. It reads the ledger."""
    week = tally.count_by_hour(now - WEEK, now)
    return facts_of(now, settings, intake, writes, week, tally.count_outcomes().pending)


def facts_without_ledger(now: datetime, settings: Settings, intake: Intake, writes: Writes) -> Facts:
    """Return the facts of this moment that are known while the ledger cannot be read."""
    refused = intake.refused.unrecorded()
    return Facts(
        now=now,
        interval=settings.reconcile_interval,
        spooled=intake.spool.depth(),
        set_aside=intake.spool.set_aside(),
        writes=intake.corrected(writes, refused),
        refused=refused,
        room=tightest_room(settings),
    )


def facts_of(
    now: datetime,
    settings: Settings,
    intake: Intake,
    writes: Writes,
    week: Mapping[datetime, Outcomes],
    pending: int,
) -> Facts:
    """Return the facts of this moment, with counts by hour and of open tasks that were read before."""
    known = facts_without_ledger(now, settings, intake, writes)
    refused = intake.refused_since(now - REFUSED_TOLD_FOR)
    return replace(
        _with_reconciler(_with_tasks(known, week, pending)),
        may_ask=settings.api_token is not None,
        writes=intake.corrected(writes, refused),
        refused=refused,
        forwards=forward_facts(now),
        unclear=unclear_facts(now),
    )


def _with_tasks(known: Facts, week: Mapping[datetime, Outcomes], pending: int) -> Facts:
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


def _with_reconciler(known: Facts) -> Facts:
    runs, asking_runs = queries.list_runs(_RUNS_WITH_CLOCK), queries.list_runs(1, asked=True)
    return replace(
        known,
        last_run=runs[0] if runs else None,
        last_asking_run=asking_runs[0] if asking_runs else None,
        failing_runs=queries.failing_runs(FAILING_AFTER_RUNS),
        reconciler_seen_at=queries.reconciler_seen_at(known.now),
        pause=current_pause(known.now),
        paused_services=paused_services(known.now),
        clock_ahead=_clock_ahead(runs),
    )


def _clock_ahead(runs: Sequence[ReconcileRun]) -> timedelta | None:
    """Return how far a reconciler's clock is ahead of upstream's, of several that which differs most."""
    seconds = [run.clock_ahead for run in runs if run.clock_ahead is not None]
    return timedelta(seconds=max(seconds, key=abs)) if seconds else None


def last_day(week: Mapping[datetime, Outcomes], now: datetime) -> dict[datetime, Outcomes]:
    """Return the last day's hours. The first is whole, so the day may be a bit longer."""
    return {hour: one for hour, one in week.items() if hour + HOUR > now - DAY}


def _missing(week: Mapping[datetime, Outcomes], now: datetime) -> Missing:
    lately = sum((one for hour, one in week.items() if hour + HOUR > now - _LATELY), Outcomes())
    total = sum(week.values(), Outcomes())
    return Missing(
        lately.missed, lately.settled, total.missed - lately.missed, total.settled - lately.settled
    )
