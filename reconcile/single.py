"""What `--once` and `--discover` share: they do their work once, and end."""

import signal
import sys
import threading
from collections.abc import Callable

from receiver.clock import Clock, utcnow
from receiver.config import Settings
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import SchemaBehind, require_schema
from receiver.ledger.paces import Paces, learn
from receiver.upstream.client import Upstream
from reconcile.calls import Caller, call_threads
from reconcile.rate_limit import RateLimiter

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_code_of(work: Callable[[], int], name: str) -> int:
    """Do the work if the schema is current, and return its exit code; 1 if the database cannot be used."""
    try:
        require_schema()
        return work()
    except (*DATABASE_ERRORS, SchemaBehind) as problem:
        print(f"No {name}: {describe(problem)}", file=sys.stderr)
        return 1


def learned_paces(settings: Settings) -> Paces:
    """Return the paces, with the newest results learned."""
    paces = Paces(settings.reconcile_grace)
    learn(utcnow())
    paces.read()
    return paces


def caller_for(settings: Settings, upstream: Upstream, clock: Clock, threads: int) -> Caller:
    """Return a caller of upstream that keeps to our rate."""
    return Caller(upstream, call_threads(threads), RateLimiter(settings.reconcile_max_rate, clock), clock)


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()  # nobody waits for it, so a handler may set it
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop
