"""python -m reconcile [--once]: asks upstream about the tasks whose callbacks never came."""

import argparse
import logging
import os
import signal
import sys
import threading

from receiver.config import Settings
from receiver.ledger.db import DATABASE_AWAY, SchemaBehind, describe, init_database, require_schema
from receiver.logs import configure_logging
from receiver.upstream import Upstream
from reconcile.run import Reconciler
from reconcile.schedule import prune_old_rows, start_scheduler

log = logging.getLogger("reconcile")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
DATABASE_RETRY_SECONDS = 5


def main() -> int:
    """Run the reconciler until SIGTERM or SIGINT, or once; return the process's exit code."""
    arguments = _parse_arguments()
    settings = Settings.from_env()
    upstream = Upstream.from_settings(settings)
    configure_logging()
    init_database(settings.database_url)
    return _run_once(settings, upstream) if arguments.once else _serve(settings, upstream)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reconcile", description=__doc__.partition(": ")[2])
    parser.add_argument(
        "--once", action="store_true", help="do one run, print what came of it, and end (for cron)"
    )
    return parser.parse_args()


def _run_once(settings: Settings, upstream: Upstream) -> int:
    stop = threading.Event()  # only ever looked at, so that a handler may set it
    for number in SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    try:
        require_schema()
        counts = Reconciler(settings, upstream, stop).run()
        prune_old_rows(settings.retention)
    except (*DATABASE_AWAY, SchemaBehind) as problem:
        print(f"No run: {describe(problem)}", file=sys.stderr)
        return 1
    print(counts)
    return 1 if counts.error else 0


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
        except DATABASE_AWAY as problem:
            log.error(
                "The database is away, trying again in %d s: %s", DATABASE_RETRY_SECONDS, describe(problem)
            )
        if signal.sigtimedwait(SIGNALS, DATABASE_RETRY_SECONDS):
            return False


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()
    sys.stdout.flush()
    # Not sys.exit(): a call to upstream that still hangs after a stop would keep the process from ending.
    os._exit(exit_code)
