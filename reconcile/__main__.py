"""python -m reconcile [--once | --discover SINCE]: asks upstream about tasks whose callbacks never came."""

import argparse
import contextlib
import logging
import os
import random
import signal
import sys
import threading
from datetime import datetime

from receiver.clock import Clock, parse_since, to_iso, utcnow
from receiver.config import Settings
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import SchemaBehind, require_schema
from receiver.ledger.paces import Paces, learn
from receiver.ledger.pauses import pauses_in_force
from receiver.ledger.reading import queries
from receiver.logs import configure_logging
from receiver.sentry import start_sentry
from receiver.upstream.client import Upstream
from reconcile.calls import Caller, call_threads
from reconcile.counts import Counts
from reconcile.discover import Discoverer, Found
from reconcile.discovering import services_to_discover
from reconcile.forward import Forwarder, sender_for
from reconcile.heartbeat import Heartbeat
from reconcile.jobs import mend_times, prune_by
from reconcile.pacemaker import SteadyClock
from reconcile.rate_limit import RateLimiter
from reconcile.run import Reconciler
from reconcile.schedule import start_scheduler

log = logging.getLogger("reconcile")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
DATABASE_RETRY_SECONDS = 5
# Of a single run: an app that hangs, or a backlog, must not keep the next one waiting.
TELL_FOR_SECONDS = 60.0


def main() -> int:
    """Run the reconciler until SIGTERM or SIGINT, or once; return the process's exit code."""
    arguments = _parse_arguments()
    settings = Settings.from_env()
    upstream = Upstream.from_settings(settings)
    configure_logging(settings.log_format)
    start_sentry(settings.sentry_dsn)
    init_database(settings.database_url, connections=settings.connections_each)
    if arguments.discover:
        return _discover(settings, upstream, arguments.discover)
    return _run_once(settings, upstream) if arguments.once else _serve(settings, upstream)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reconcile", description=__doc__.partition(": ")[2])
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--once", action="store_true", help="do one run, print what came of it, and end (for cron)"
    )
    instead.add_argument(
        "--discover",
        type=_since,
        metavar="SINCE",
        help="adopt the tasks submitted since then (90m, 2h, 3d, or an ISO 8601 moment) whose callback_url"
        " points at PUBLIC_URL, print what came of it, and end",
    )
    return parser.parse_args()


def _since(text: str) -> datetime:
    try:
        return parse_since(text, utcnow())
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _run_once(settings: Settings, upstream: Upstream) -> int:
    clock, stop = Clock(), _stop_on_signal()
    caller = _caller(settings, upstream, clock, settings.reconcile_concurrency)
    try:
        require_schema()
        mend_times(clock.now())
        paces = _paces(settings)
        reconciler = Reconciler(settings, caller, paces, SteadyClock(clock), random.Random(), stop)
        counts = reconciler.run(due_by=clock.now())
        unanswered = _unanswered(counts)
        forwarder = Forwarder(settings, sender_for(settings), clock, random.Random(), stop)
        if reconciler.was_good:
            _beat(settings, clock)
        forwarder.run(TELL_FOR_SECONDS)
        prune_by(settings, clock, stop)
    except (*DATABASE_ERRORS, SchemaBehind) as problem:
        print(f"No run: {describe(problem)}", file=sys.stderr)
        return 1
    print(counts)
    if unanswered:
        print(f"Nothing was asked: {unanswered}", file=sys.stderr)
    return 1 if counts.error or unanswered else 0


def _beat(settings: Settings, clock: Clock) -> None:
    with contextlib.closing(sender_for(settings)) as sender:
        heartbeat = Heartbeat(settings.heartbeat_url, sender, clock)
        heartbeat.beat()
        heartbeat.wait()


def _unanswered(counts: Counts) -> str | None:
    """Return why a run asked nothing although tasks wait for an answer; None when that is well."""
    if counts.calls or counts.error:
        return None
    now = utcnow()
    pause = next(iter(pauses_in_force(now)), None)
    waiting = queries.earliest_waiting(failed_only=pause is None)
    if waiting is None:
        return None
    if pause:
        about = f" about {pause.service}" if pause.service else ""
        return f"asking{about} is paused, and tasks wait for an answer: {pause.reason}"
    due_in = max(((waiting.next_lookup_at or now) - now).total_seconds(), 0)
    why = f"upstream's last answer was an error: {waiting.last_lookup_error}"
    return f"tasks wait for an answer, the next is asked about in {due_in:.0f} s; {why}"


def _discover(settings: Settings, upstream: Upstream, since: datetime) -> int:
    caller, stop = _caller(settings, upstream, Clock(), 1), _stop_on_signal()
    has_failed = False
    try:
        require_schema()
        paces = _paces(settings)
        for service in services_to_discover():
            found = Discoverer(settings, caller, paces, service, stop).run_since(since, _print_progress)
            print(f"{service.name}: {found}")
            has_failed = has_failed or found.error is not None
            if found.stopped:
                break
    except (*DATABASE_ERRORS, SchemaBehind) as problem:
        print(f"No discovery: {describe(problem)}", file=sys.stderr)
        return 1
    return 1 if has_failed else 0


def _paces(settings: Settings) -> Paces:
    paces = Paces(settings.reconcile_grace)
    learn(utcnow())
    paces.read()
    return paces


def _caller(settings: Settings, upstream: Upstream, clock: Clock, threads: int) -> Caller:
    return Caller(upstream, call_threads(threads), RateLimiter(settings.reconcile_max_rate, clock), clock)


def _print_progress(found: Found) -> None:
    print(f"page {found.pages}, down to {to_iso(found.reached)}: {found}", file=sys.stderr)


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()  # only ever looked at, so that a handler may set it
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop


def _serve(settings: Settings, upstream: Upstream) -> int:
    # Blocked here and so in every thread, then awaited: a handler that sets an event which this thread is
    # just beginning to wait for would wait for itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        if not _await_schema():
            return 0
    except SchemaBehind as problem:
        log.error("%s", problem)
        return 1
    log.info("Asking %s about silent tasks.", settings.api_base_url)
    stop = threading.Event()
    scheduler = start_scheduler(settings, upstream, stop)
    signal.sigwait(SIGNALS)
    log.info("Stopping.")
    stop.set()
    scheduler.shutdown()
    return 0


def _await_schema() -> bool:
    """Wait until the database answers; False when a signal came first. Raises SchemaBehind."""
    while True:
        try:
            require_schema()
            return True
        except DATABASE_ERRORS as problem:
            log.error(
                "The database cannot be used, trying again in %d s: %s",
                DATABASE_RETRY_SECONDS,
                describe(problem),
            )
        if signal.sigtimedwait(SIGNALS, DATABASE_RETRY_SECONDS):
            return False


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit(): a call to upstream that still hangs after a stop would keep the process from ending.
    os._exit(exit_code)
