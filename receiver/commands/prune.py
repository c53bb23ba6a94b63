"""flask --app wsgi prune: deletes old rows now, or tells which ones would go."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.shared import Progress, json_option, using_ledger
from receiver.ledger.old import Old
from receiver.ledger.pruning import Step, count_old
from receiver.ledger.pruning import prune as delete_old
from receiver.redact import mask_credentials
from receiver.upstream.date import Comparison, ask_date, earlier_now
from receiver.web.current import current_settings

_LONGEST_DAYS = 36_500


@click.command("prune")
@click.option(
    "--older-than",
    "days",
    type=click.IntRange(1, _LONGEST_DAYS),
    metavar="DAYS",
    help="Delete what is older than this, instead of RETENTION_DAYS. Tasks go by TASK_RETENTION_DAYS alone.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@json_option
@with_appcontext
def prune(days: int | None, dry_run: bool, as_json: bool) -> None:
    """Delete old rows now. The reconciler does the same every hour.

    Deliveries, look-ups, runs, and forwards that were delivered or dismissed go after RETENTION_DAYS. Settled
    and expired tasks go after TASK_RETENTION_DAYS, if that is set. Callbacks are answered meanwhile.

    What goes is old by upstream's clock too. While upstream does not answer, nothing is deleted.

    Ctrl-C stops it. What was deleted stays deleted, and the next run continues from there.

    \b
    flask --app wsgi prune --older-than 7 --dry-run
    """
    stop, rows = threading.Event(), Counter[str]()
    with using_ledger(), _stopped_by_signals(stop):
        old = _old(days, _now())
        _add_up(rows, count_old(old) if dry_run else delete_old(old, stop), stop)
    complete = not stop.is_set()
    told = {"dry_run": dry_run, "complete": complete, "rows": dict(rows)}
    click.echo(json.dumps(told, indent=2) if as_json else _in_words(rows, dry_run))
    if not complete:
        click.echo("Stopped. Run it again to go on.", err=True)
        raise SystemExit(1)


def _add_up(rows: Counter[str], steps: Iterable[Step], stop: threading.Event) -> None:
    progress = Progress()
    for step in steps:
        rows[step.kind] += step.deleted
        if stop.is_set():
            return
        progress.tell(f"{rows.total():,} rows, now at {step.kind}")


def _now() -> datetime:
    """Return the time by our clock or by upstream's, whichever is earlier."""
    url = current_settings().api_base_url
    clocks = Comparison(utcnow)
    clocks.note(ask_date(url))
    now = earlier_now(utcnow(), clocks.ahead)
    if now is None:
        said = "Nothing is deleted: this machine's clock may be ahead, and upstream does not tell the time"
        raise click.ClickException(f"{said} ({mask_credentials(url)}). Run it again when that answers.")
    return now


def _old(days: int | None, now: datetime) -> Old:
    settings = current_settings()
    rows = settings.retention if days is None else timedelta(days=days)
    tasks = None if settings.task_retention is None else now - settings.task_retention
    return Old(now - rows, tasks)


def _in_words(rows: Counter[str], dry_run: bool) -> str:
    said = "Nothing was deleted: without --dry-run these rows go." if dry_run else "These rows are deleted."
    if not rows.total():
        return "Nothing is old enough to be deleted."
    return "\n".join([said, *(f"  {kind}: {number:,}" for kind, number in rows.items() if number)])


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the work between two steps."""

    def end(*_: Any) -> None:
        stop.set()

    before = [(number, signal.signal(number, end)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
