"""The jobs of a reconciler, and how often each is due. It knows no scheduler."""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from receiver.clock import Clock
from receiver.config import Settings
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.paces import Paces
from receiver.upstream.client import Upstream
from reconcile.discover import Discoverer
from reconcile.discovering import discover_all
from reconcile.forward import Forwarder
from reconcile.heartbeat import Heartbeat
from reconcile.outage import Outage
from reconcile.returns import ReturnsFollower
from reconcile.run import Reconciler
from reconcile.unclear import UnclearSubmissions
from reconcile.upkeep import learn_paces, mend_times, prune_by

log = logging.getLogger(__name__)

PRUNE_EVERY = timedelta(hours=1)
FIRST_PRUNE_AFTER = timedelta(minutes=1)
DISCOVER_EVERY = timedelta(minutes=10)
FIRST_DISCOVERY_AFTER = timedelta(seconds=5)
# When upstream's list holds more than one discovery may ask for.
DISCOVER_ON_AFTER = timedelta(seconds=30)
MEND_EVERY = timedelta(hours=1)
MEND_AGAIN_AFTER = timedelta(minutes=1)
LEARN_EVERY = timedelta(seconds=10)
FOLLOW_EVERY = timedelta(seconds=10)
AGAIN_AFTER = timedelta(seconds=5)  # of a database that cannot be used
FORWARD_EVERY = timedelta(seconds=0.25)  # a look reads a few rows
LOOK_FOR_UNCLEAR_EVERY = timedelta(seconds=15)
RECONCILE, DISCOVERY, MEND, PRUNE, FORWARD = "reconcile", "discovery", "mend", "prune", "forward"


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do every so often, for the first time after `first_in`."""

    name: str
    run: Callable[[], None]
    every: timedelta
    first_in: timedelta = timedelta(0)

    def wait_after_jump(self) -> timedelta:
        """Return when to run it after the wall clock was set. Pruning waits: the new time may be wrong."""
        return self.every if self.name == PRUNE else timedelta(0)


def list_jobs(
    settings: Settings,
    upstream: Upstream,
    reconciler: Reconciler,
    discoverers: Iterable[Discoverer],
    paces: Paces,
    clock: Clock,
    run_in: Callable[[str, timedelta], None],
    heartbeat: Heartbeat | None = None,
    stop: threading.Event | None = None,
) -> list[Job]:
    """Return what to do how often. A job calls `run_in` to be run next in so much time from now.

    `stop` ends the pruning between two of its steps.
    """
    interval = settings.reconcile_interval
    follower = ReturnsFollower(clock, is_discovered=bool(discoverers))
    prune = partial(prune_by, settings, upstream, clock, stop or threading.Event())
    jobs = [
        Job(RECONCILE, partial(reconcile_due_tasks, reconciler, Outage(clock), run_in, heartbeat), interval),
        Job("learn", partial(learn_paces, paces, clock), LEARN_EVERY),
        Job("follow", partial(follow_returns, follower, run_in), FOLLOW_EVERY),
        Job(MEND, partial(mend, upstream, clock, run_in), MEND_EVERY),
        Job(PRUNE, prune, PRUNE_EVERY, FIRST_PRUNE_AFTER),
    ]
    if discoverers:
        discover = partial(discover_tasks, discoverers, run_in)
        jobs.append(Job(DISCOVERY, discover, DISCOVER_EVERY, FIRST_DISCOVERY_AFTER))
    return jobs


def forward_job(forwarder: Forwarder, run_in: Callable[[str, timedelta], None]) -> Job:
    """Return the job that tells the customer's app."""
    return Job(FORWARD, partial(forward_events, forwarder, run_in), FORWARD_EVERY)


def unclear_job(unclear: UnclearSubmissions) -> Job:
    """Return the job that finds out what became of submissions whose answer was lost."""
    return Job("unclear", partial(look_for_unclear, unclear), LOOK_FOR_UNCLEAR_EVERY)


def look_for_unclear(unclear: UnclearSubmissions) -> None:
    """Look for unclear submissions."""
    try:
        unclear.look()
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, looking for submissions later: %s", describe(problem))


def forward_events(forwarder: Forwarder, run_in: Callable[[str, timedelta], None]) -> None:
    """Tell the customer's app what has happened. If the database is down, try again some seconds later."""
    try:
        forwarder.run()
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, telling the app later: %s", describe(problem))
        run_in(FORWARD, AGAIN_AFTER)
    except Exception:
        log.exception(
            "Telling the app ended with an unexpected error, trying again in %d s", AGAIN_AFTER.seconds
        )
        run_in(FORWARD, AGAIN_AFTER)


def follow_returns(follower: ReturnsFollower, run_in: Callable[[str, timedelta], None]) -> None:
    """When the receiver has come back, look at once for what it may have missed."""
    try:
        if follower.look():
            run_in(RECONCILE, timedelta(0))
            run_in(DISCOVERY, timedelta(0))
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, looking for returns later: %s", describe(problem))


def reconcile_due_tasks(
    reconciler: Reconciler,
    outage: Outage,
    run_in: Callable[[str, timedelta], None],
    heartbeat: Heartbeat | None = None,
) -> None:
    """Ask upstream about every task that is due. If the database is down, try again some seconds later."""
    try:
        has_more = True
        while has_more:
            counts = reconciler.run()
            if counts.due or counts.error:
                log.info("Run: %s", counts)
            outage.note(counts)
            if heartbeat and reconciler.was_good:
                heartbeat.beat()
            has_more = reconciler.has_more
    except DATABASE_ERRORS as problem:
        log.error(
            "The database cannot be used, trying again in %d s: %s", AGAIN_AFTER.seconds, describe(problem)
        )
        run_in(RECONCILE, AGAIN_AFTER)


def discover_tasks(discoverers: Iterable[Discoverer], run_in: Callable[[str, timedelta], None]) -> None:
    """Adopt our tasks from upstream's lists. If pages are left, the next discovery starts soon."""
    try:
        has_more = discover_all(discoverers)
    except DATABASE_ERRORS as problem:
        log.error("The database cannot be used, discovering tasks later: %s", describe(problem))
        return
    if has_more:
        run_in(DISCOVERY, DISCOVER_ON_AFTER)


def mend(upstream: Upstream, clock: Clock, run_in: Callable[[str, timedelta], None]) -> None:
    """Mend wrong times, once upstream's time is known."""
    if not mend_times(upstream, clock):
        run_in(MEND, MEND_AGAIN_AFTER)
