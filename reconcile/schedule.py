"""Runs the jobs at their times, in threads of this process.

See "Processes" in docs/design.md.
"""

import contextlib
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from receiver.clock import Clock
from receiver.config import Settings
from receiver.ledger import pauses
from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.paces import Paces
from receiver.upstream.client import Upstream
from receiver.upstream.services import Service
from reconcile.calls import Caller, call_threads
from reconcile.discover import Discoverer
from reconcile.discovering import Discoverers
from reconcile.forward import Forwarder, sender_for
from reconcile.heartbeat import Heartbeat
from reconcile.jobs import Job, forward_job, list_jobs, unclear_job
from reconcile.pacemaker import Pacemaker, SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from reconcile.unclear import UnclearSubmissions


class _Every(IntervalTrigger):  # type: ignore[misc]  # APScheduler has no type hints
    """After a late run the next one comes an interval from now.

    APScheduler would list all times that were missed, 100 million for a clock that jumps from 1970.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        due_at: datetime = super().get_next_fire_time(previous_fire_time, now)
        return due_at if due_at > now else now + self.interval


class _Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no type hints
    """APScheduler sleeps by the wall clock: set back by 8 h, it would run nothing for 8 h."""

    def __init__(self, steady: SteadyClock, clock: Clock) -> None:
        super().__init__(
            timezone=UTC,
            # None: a late run is run, never skipped. Runs that are overdue together become one.
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._clock = clock
        self._jobs: Sequence[Job] = ()
        self._pacemaker = Pacemaker(steady, self.follow_jump)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Start to run jobs."""
        self._jobs = jobs
        for job in jobs:
            trigger = _Every(seconds=job.every.total_seconds(), timezone=UTC)
            self.add_job(job.run, trigger, id=job.name, next_run_time=self._from_now(job.first_in))
        self.start()
        self._pacemaker.start()

    def run_in(self, name: str, wait: timedelta) -> None:
        """Run a job in so much time from now, instead of when it would be due."""
        with contextlib.suppress(JobLookupError):  # the scheduler is shutting down
            self.modify_job(name, next_run_time=self._from_now(wait))

    def follow_jump(self) -> None:
        """Run the jobs by a wall clock that was set."""
        for job in self._jobs:
            self.run_in(job.name, job.wait_after_jump())

    def shutdown(self, *args: Any, **kwargs: Any) -> None:
        self._pacemaker.stop()
        super().shutdown(*args, **kwargs)

    def _from_now(self, wait: timedelta) -> datetime:
        return self._clock.now().replace(tzinfo=UTC) + wait


def start_scheduler(settings: Settings, upstream: Upstream, stop: threading.Event) -> BackgroundScheduler:
    """Start the jobs in threads of this process and return their scheduler; the first run begins at once.

    So does a probe of a paused account: the token may have been mended before this start.
    To end: set `stop`, then `shutdown()`, which waits for the run in progress.
    """
    clock = Clock()
    with contextlib.suppress(*DATABASE_ERRORS):
        pauses.probe_at_once(clock.now())
    steady, limiter = SteadyClock(clock), RateLimiter(settings.reconcile_max_rate, clock)
    caller = Caller(upstream, call_threads(settings.reconcile_concurrency), limiter, clock)
    discoverers: Iterable[Discoverer] = ()
    paces = Paces(settings.reconcile_grace)
    if settings.public_url:
        lister = replace(caller, threads=call_threads(1))

        def make(service: Service) -> Discoverer:
            return Discoverer(settings, lister, paces, service, stop)

        discoverers = Discoverers(make)
    scheduler = _Scheduler(steady, clock)
    reconciler = Reconciler(settings, caller, paces, steady, random.Random(), stop)
    sender = sender_for(settings)
    heartbeat = Heartbeat(settings.heartbeat_url, sender, clock)
    forwarder = Forwarder(settings, sender, clock, random.Random(), stop)
    jobs = list_jobs(settings, reconciler, discoverers, paces, clock, scheduler.run_in, heartbeat, stop)
    unclear = UnclearSubmissions(caller, paces, settings.forward_when)
    scheduler.begin([*jobs, forward_job(forwarder, scheduler.run_in), unclear_job(unclear)])
    return scheduler
