"""Makes the parts of a reconciler and starts its jobs in threads of this process.

This is the composition root of a reconciler that keeps running, in a process of its own or in a web worker.
"""

import contextlib
import random
import threading
from collections.abc import Iterable
from dataclasses import replace

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
from reconcile.jobs import forward_job, list_jobs, unclear_job
from reconcile.pacemaker import SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from reconcile.scheduler import Scheduler
from reconcile.unclear import UnclearSubmissions


def start_scheduler(settings: Settings, upstream: Upstream, stop: threading.Event) -> Scheduler:
    """Start the jobs and return their scheduler. The first run begins at once.

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
    scheduler = Scheduler(steady, clock)
    reconciler = Reconciler(settings, caller, paces, steady, random.Random(), stop)
    sender = sender_for(settings)
    heartbeat = Heartbeat(settings.heartbeat_url, sender, clock)
    forwarder = Forwarder(settings, sender, clock, random.Random(), stop)
    run_in = scheduler.run_in
    jobs = list_jobs(settings, upstream, reconciler, discoverers, paces, clock, run_in, heartbeat, stop)
    unclear = UnclearSubmissions(caller, paces, settings.forward_when, stop)
    scheduler.begin([*jobs, forward_job(forwarder, run_in), unclear_job(unclear)])
    return scheduler
