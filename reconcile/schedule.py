"""The jobs and their times: a run every RECONCILE_INTERVAL, discovery every 10 min, the rest once an hour.

See "Processes" in docs/design.md.
"""

import contextlib
import logging
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import mending, pauses, runs
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.reading import tally
from receiver.upstream.client import Upstream
from reconcile.discover import Discoverer
from reconcile.outage import Outage
from reconcile.pacemaker import Pacemaker, SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler

log = logging.getLogger(__name__)

PRUNE_EVERY = timedelta(hours=1)
FIRST_PRUNE_AFTER = timedelta(minutes=1)
TOTALS_BY_HOUR_FOR = timedelta(days=8)
TOTALS_BY_LENGTH_FOR = timedelta(days=2)
TOTALS_BY_SHARD_FOR = timedelta(hours=2)
DISCOVER_EVERY = timedelta(minutes=10)
FIRST_DISCOVERY_AFTER = timedelta(seconds=5)
# When upstream's list holds more than one discovery may ask for.
DISCOVER_ON_AFTER = timedelta(seconds=30)
MEND_EVERY = timedelta(hours=1)
_DISCOVERY, _PRUNE = "discovery", "prune"


class _Every(IntervalTrigger):  # type: ignore[misc]  # APScheduler has no type hints
    """After a late run the next one comes an interval from now.

    APScheduler would list all times that were missed, 100 million for a clock that jumps from 1970.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        due_at: datetime = super().get_next_fire_time(previous_fire_time, now)
        return due_at if due_at > now else now + self.interval


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no type hints
    """APScheduler sleeps by the wall clock: set back by 8 h, it would run nothing for 8 h."""

    def __init__(self, clock: SteadyClock, **options: Any) -> None:
        super().__init__(**options)
        self._pacemaker = Pacemaker(clock, partial(make_jobs_due, self))

    def start(self, *args: Any, **kwargs: Any) -> None:
        super().start(*args, **kwargs)
        self._pacemaker.start()

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        self._pacemaker.stop()
        super().shutdown(*args, **kwargs)


def start_scheduler(settings: Settings, upstream: Upstream, stop: threading.Event) -> BackgroundScheduler:
    """Start the jobs in threads of this process and return their scheduler; the first run begins at once.

    So does a probe of a paused account: whoever starts this anew may have mended the token.
    To end: set `stop`, then `shutdown()`, which waits for the run in progress.
    """
    with contextlib.suppress(*DATABASE_ERRORS):
        pauses.probe_at_once(utcnow())
    limiter, clock = RateLimiter(settings.reconcile_max_rate), SteadyClock()
    reconciler = Reconciler(settings, upstream, stop, limiter, clock)
    scheduler = _Scheduler(
        clock,
        timezone=UTC,
        # None: a late run is run, never skipped. Runs that are overdue together become one.
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
    )
    now = _now()
    scheduler.add_job(
        reconcile_due_tasks, _every(settings.reconcile_interval), [reconciler, Outage()], next_run_time=now
    )
    scheduler.add_job(mend_times, _every(MEND_EVERY), next_run_time=now)
    scheduler.add_job(
        prune_old_rows,
        _every(PRUNE_EVERY),
        [settings.retention],
        id=_PRUNE,
        next_run_time=now + FIRST_PRUNE_AFTER,
    )
    if settings.public_url:
        scheduler.add_job(
            discover_tasks,
            _every(DISCOVER_EVERY),
            [Discoverer(settings, upstream, stop, limiter), scheduler],
            id=_DISCOVERY,
            next_run_time=now + FIRST_DISCOVERY_AFTER,
        )
    scheduler.start()
    return scheduler


def make_jobs_due(scheduler: BackgroundScheduler) -> None:
    """Run every job now, by a clock that was set. Pruning waits: the new time may be the wrong one."""
    for job in scheduler.get_jobs():
        with contextlib.suppress(JobLookupError):  # the scheduler is shutting down
            wait = PRUNE_EVERY if job.id == _PRUNE else timedelta(0)
            scheduler.modify_job(job.id, next_run_time=_now() + wait)


def mend_times() -> None:
    """Undo what a reconciler did whose clock was ahead."""
    try:
        mended = mending.mend_after_future(utcnow())
    except DATABASE_ERRORS as problem:
        log.error("The database is away, wrong times are mended later: %s", describe(problem))
        return
    if mended:
        log.warning("A reconciler ran while its clock was ahead. %d tasks are asked about again.", mended)


def reconcile_due_tasks(reconciler: Reconciler, outage: Outage) -> None:
    """Ask upstream about every task that is due. A database that is away is waited for until the next run."""
    try:
        has_more = True
        while has_more:
            counts = reconciler.run()
            if counts.due or counts.error:
                log.info("Run: %s", counts)
            outage.note(counts)
            has_more = reconciler.has_more
    except DATABASE_ERRORS as problem:
        log.error("The database is away, trying again at the next run: %s", describe(problem))


def discover_tasks(discoverer: Discoverer, scheduler: BackgroundScheduler) -> None:
    """Adopt our tasks from upstream's list. If pages are left, the next discovery starts soon."""
    try:
        found = discoverer.run()
    except DATABASE_ERRORS as problem:
        log.error("The database is away, discovering tasks later: %s", describe(problem))
        return
    if found.adopted:
        log.info("Discovery: %s", found)
    if found.has_more:
        with contextlib.suppress(JobLookupError):  # the scheduler is shutting down
            scheduler.modify_job(_DISCOVERY, next_run_time=_now() + DISCOVER_ON_AFTER)


def prune_old_rows(retention: timedelta) -> None:
    """Delete what is older than the retention time, tasks excepted, and join old totals."""
    now = utcnow()
    try:
        deleted = runs.prune(now - retention)
        tally.fold(now - TOTALS_BY_HOUR_FOR, now - TOTALS_BY_LENGTH_FOR, now - TOTALS_BY_SHARD_FOR)
    except DATABASE_ERRORS as problem:
        log.error("The database is away, pruning later: %s", describe(problem))
        return
    if deleted:
        log.info("Pruned %d rows older than %d days.", deleted, retention.days)


def _every(interval: timedelta) -> _Every:
    return _Every(seconds=interval.total_seconds(), timezone=UTC)


def _now() -> datetime:
    return utcnow().replace(tzinfo=UTC)
