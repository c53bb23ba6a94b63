"""One life of a reconciler's process: its jobs, each in a strand of its own, when they are due.

In the calm the world knows when a job would find nothing to do, and leaves most of these runs out.
"""

import contextlib
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from receiver.ledger import pauses
from receiver.ledger.engine.errors import DATABASE_ERRORS
from reconcile.jobs import Job
from reconcile.pacemaker import Pacemaker
from tests.simulation.clock import Process, WorldClock
from tests.simulation.schedule import Pace, make_jobs
from tests.simulation.told import ToldApp
from tests.simulation.upstream import Account, Client

_REST_SECONDS = 0.02


class _Stop(threading.Event):
    """Waits by the world's clock, for a time of its own: what pruning wants to rest depends on this machine."""

    def __init__(self, clock: WorldClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.wait(_REST_SECONDS)
        return self.is_set()


class ReconcilerProcess(Process):
    """The jobs run until it dies, or until it has been told to stop and each has ended."""

    def __init__(
        self,
        name: str,
        clock: WorldClock,
        on_death: Callable[[Process], None],
        pace: Pace,
        account: Account,
        rng: random.Random,
        is_idle: Callable[[str], bool],
        told: ToldApp,
    ) -> None:
        super().__init__(name, clock, on_death)
        self._is_idle = is_idle
        self.stop = _Stop(clock)
        self._running: set[str] = set()
        self._due: dict[str, float] = {}  # monotonic
        jobs, steady = make_jobs(pace, self, Client(account, self), rng, self.stop, self._run_in, told)
        self._jobs = {job.name: job for job in jobs}
        self._pacemaker = Pacemaker(steady, self._make_all_due)
        self.spawn(self._begin)

    @property
    def has_stopped(self) -> bool:
        return self.stop.is_set() and not self._running

    def look_at_clock(self) -> None:
        """Do what the pacemaker's thread does each second; the world calls it when the clock was set."""
        if self.is_alive:
            self._pacemaker.look()

    def _begin(self) -> None:
        with contextlib.suppress(*DATABASE_ERRORS):
            pauses.probe_at_once(self.clock.now())
        for name, job in self._jobs.items():
            self._run_in(name, job.first_in)

    def _make_all_due(self) -> None:
        for name, job in self._jobs.items():
            self._run_in(name, job.wait_after_jump())

    def _run_in(self, name: str, wait: timedelta) -> None:
        self._due[name] = self.clock.monotonic() + wait.total_seconds()
        self.clock.plan(wait.total_seconds(), partial(self._start, self._jobs[name]))

    def _start(self, job: Job) -> None:
        is_due = self._due[job.name] <= self.clock.monotonic()
        if is_due and job.name not in self._running and self.is_alive and not self.stop.is_set():
            self._run_in(job.name, job.every)
            if not self._is_idle(job.name):
                self._running.add(job.name)
                self.spawn(partial(self._run_job, job))

    def _run_job(self, job: Job) -> None:
        try:
            job.run()
        finally:
            self._running.discard(job.name)
        if self._due[job.name] <= self.clock.monotonic():
            self._run_in(job.name, timedelta(0))
