"""The jobs and their times: a run every RECONCILE_INTERVAL, discovery every 10 min, pruning once an hour."""

import contextlib
import logging
import threading
from datetime import UTC, datetime, timedelta

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler

from receiver.config import Settings
from receiver.ledger import pauses, runs, tally
from receiver.ledger.clock import utcnow
from receiver.ledger.db import DATABASE_AWAY, describe
from receiver.upstream import Upstream
from reconcile.ceiling import Ceiling
from reconcile.discover import Discoverer
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
_DISCOVERY = "discovery"


def start_scheduler(settings: Settings, upstream: Upstream, stop: threading.Event) -> BackgroundScheduler:
    """Start the jobs in threads of this process and return their scheduler; the first run begins at once.

    So does a probe of a paused account: whoever starts this anew may have mended the token.
    To end: set `stop`, then `shutdown()`, which waits for the run in progress.
    """
    with contextlib.suppress(*DATABASE_AWAY):
        pauses.probe_at_once(utcnow())
    ceiling = Ceiling(settings.reconcile_max_rate)
    reconciler = Reconciler(settings, upstream, stop, ceiling)
    scheduler = BackgroundScheduler(
        timezone=UTC,
        # None: a late run is run, never skipped. Runs that are overdue together become one.
        job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
    )
    now = datetime.now(UTC)
    seconds = settings.reconcile_interval.total_seconds()
    scheduler.add_job(reconcile_due_tasks, "interval", [reconciler], seconds=seconds, next_run_time=now)
    scheduler.add_job(
        prune_old_rows,
        "interval",
        [settings.retention],
        seconds=PRUNE_EVERY.total_seconds(),
        next_run_time=now + FIRST_PRUNE_AFTER,
    )
    if settings.public_url:
        scheduler.add_job(
            discover_tasks,
            "interval",
            [Discoverer(settings, upstream, stop, ceiling), scheduler],
            seconds=DISCOVER_EVERY.total_seconds(),
            id=_DISCOVERY,
            next_run_time=now + FIRST_DISCOVERY_AFTER,
        )
    scheduler.start()
    return scheduler


def reconcile_due_tasks(reconciler: Reconciler) -> None:
    """Ask upstream about every task that is due. A database that is away is waited for until the next run."""
    try:
        has_more = True
        while has_more:
            counts = reconciler.run()
            if counts.due or counts.error:
                log.info("Run: %s", counts)
            has_more = reconciler.has_more
    except DATABASE_AWAY as problem:
        log.error("The database is away, trying again at the next run: %s", describe(problem))


def discover_tasks(discoverer: Discoverer, scheduler: BackgroundScheduler) -> None:
    """Adopt the tasks in upstream's list whose callbacks go here; what is left over is gone on with soon."""
    try:
        found = discoverer.run()
    except DATABASE_AWAY as problem:
        log.error("The database is away, discovering tasks later: %s", describe(problem))
        return
    if found.adopted:
        log.info("Discovery: %s", found)
    if found.has_more:
        with contextlib.suppress(JobLookupError):  # the scheduler is shutting down
            scheduler.modify_job(_DISCOVERY, next_run_time=datetime.now(UTC) + DISCOVER_ON_AFTER)


def prune_old_rows(retention: timedelta) -> None:
    """Delete what is older than the retention time, tasks excepted, and join old totals."""
    now = utcnow()
    try:
        deleted = runs.prune(now - retention)
        tally.fold(now - TOTALS_BY_HOUR_FOR, now - TOTALS_BY_LENGTH_FOR, now - TOTALS_BY_SHARD_FOR)
    except DATABASE_AWAY as problem:
        log.error("The database is away, pruning later: %s", describe(problem))
        return
    if deleted:
        log.info("Pruned %d rows older than %d days.", deleted, retention.days)
