"""What work needs that is done once and then ends: `--once` and `--discover`."""

import signal
import threading

from receiver.clock import Clock, utcnow
from receiver.config import Settings
from receiver.ledger.paces import Paces, learn
from receiver.upstream.client import Upstream
from reconcile.calls import Caller, call_threads
from reconcile.rate_limit import RateLimiter

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def learned_paces(settings: Settings) -> Paces:
    """Return the paces, with the newest results learned."""
    paces = Paces(settings.reconcile_grace)
    learn(utcnow())
    paces.read()
    return paces


def caller_for(settings: Settings, upstream: Upstream, clock: Clock, threads: int) -> Caller:
    """Return what calls upstream, within our rate."""
    return Caller(upstream, call_threads(threads), RateLimiter(settings.reconcile_max_rate, clock), clock)


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()  # only ever looked at, so that a handler may set it
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop
