"""Makes what asks upstream, as the processes do: over the stand-in, or over whatever stands for it."""

import random
import threading

from receiver.clock import Clock
from receiver.config import Settings
from receiver.ledger.paces import Paces
from receiver.upstream import services
from receiver.upstream.client import Upstream
from reconcile.calls import Caller, call_threads
from reconcile.discover import Discoverer
from reconcile.pacemaker import SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from tests.upstream import StandIn


def make_reconciler(
    settings: Settings, stand_in: StandIn, stop: threading.Event, clock: Clock | None = None
) -> Reconciler:
    caller = _caller(settings, stand_in, settings.reconcile_concurrency, clock or Clock())
    paces = Paces(settings.reconcile_grace)
    return Reconciler(settings, caller, paces, SteadyClock(caller.clock), random.Random(), stop)


def make_discoverer(
    settings: Settings,
    stand_in: StandIn,
    stop: threading.Event,
    clock: Clock | None = None,
    service: services.Service = services.DEFAULT,
) -> Discoverer:
    caller = _caller(settings, stand_in, 1, clock or Clock())
    return Discoverer(settings, caller, Paces(settings.reconcile_grace), service, stop)


def _caller(settings: Settings, stand_in: StandIn, threads: int, clock: Clock) -> Caller:
    upstream = Upstream(stand_in.url, "test-token", threads)
    return Caller(upstream, call_threads(threads), RateLimiter(settings.reconcile_max_rate, clock), clock)
