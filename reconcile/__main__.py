"""python -m reconcile [--once | --discover SINCE]: asks upstream about tasks whose callbacks never came."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from datetime import datetime

from receiver.clock import parse_since, utcnow
from receiver.config import Settings
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import SchemaBehind, require_schema
from receiver.logs import configure_logging
from receiver.misspelt import in_words
from receiver.sentry import start_sentry
from receiver.upstream.client import Upstream
from reconcile.discover_since import discover_since
from reconcile.once import run_once
from reconcile.single import SIGNALS
from reconcile.start import start_scheduler

log = logging.getLogger("reconcile")

DATABASE_RETRY_SECONDS = 5


def main() -> int:
    """Run the reconciler until SIGTERM or SIGINT, or once; return the process's exit code."""
    arguments = _parse_arguments()
    settings = Settings.from_env()
    upstream = Upstream.from_settings(settings)
    configure_logging(settings.log_format)
    start_sentry(settings.sentry_dsn)
    for told in in_words(settings.misspelt):
        log.warning("%s", told)
    init_database(settings.database_url, connections=settings.connections_each)
    if arguments.discover:
        return discover_since(settings, upstream, arguments.discover)
    return run_once(settings, upstream) if arguments.once else _serve(settings, upstream)


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


def _serve(settings: Settings, upstream: Upstream) -> int:
    for number in SIGNALS:  # nothing is in progress yet, and a database that hangs could keep us for long
        signal.signal(number, lambda *_: os._exit(0))
    try:
        _await_schema()
    except SchemaBehind as problem:
        log.error("%s", problem)
        return 1
    # Blocked here and so in every thread, then awaited: a handler that sets an event which this thread is
    # just beginning to wait for would wait for itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    log.info("Asking %s about silent tasks.", settings.api_base_url)
    stop = threading.Event()
    scheduler = start_scheduler(settings, upstream, stop)
    signal.sigwait(SIGNALS)
    log.info("Stopping.")
    stop.set()
    scheduler.shutdown()
    return 0


def _await_schema() -> None:
    """Wait until the database answers. Raises SchemaBehind."""
    while True:
        try:
            return require_schema()
        except DATABASE_ERRORS as problem:
            log.error(
                "The database cannot be used, trying again in %d s: %s",
                DATABASE_RETRY_SECONDS,
                describe(problem),
            )
        time.sleep(DATABASE_RETRY_SECONDS)


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit(): a call to upstream that still hangs after a stop would keep the process from ending.
    os._exit(exit_code)
