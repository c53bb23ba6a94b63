"""Runs the jobs at their times, in threads of this process, whatever is done to the wall clock.

See "Processes" in docs/design.md.
"""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from receiver.clock import Clock
from reconcile.jobs import Job
from reconcile.pacemaker import Pacemaker, SteadyClock


class _Every(IntervalTrigger):  # type: ignore[misc]  # APScheduler has no type hints
    """After a late run the next one comes an interval from now.

    APScheduler would list all times that were missed, 100 million for a clock that jumps from 1970.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        due_at: datetime = super().get_next_fire_time(previous_fire_time, now)
        return due_at if due_at > now else now + self.interval


class Scheduler(BackgroundScheduler):  # type: ignore[misc]  # APScheduler has no type hints
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
