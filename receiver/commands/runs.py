"""flask --app wsgi runs: what the reconciler's runs asked, and what came of it."""

import json
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.clock import to_iso, utcnow
from receiver.commands.shared import json_option, line, using_ledger
from receiver.ledger.models import ReconcileRun
from receiver.ledger.reading.queries import list_runs
from receiver.web.formatting import took

_COUNTS = ("due", "asked", "settled", "confirmed", "running", "absent", "unanswered", "calls", "errors")


@click.command("runs")
@click.option("--asked", is_flag=True, help="Those that called upstream.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@json_option
@with_appcontext
def runs(asked: bool, limit: int, as_json: bool) -> None:
    """List the reconciler's runs and what came of each.

    The newest comes first. Counts that are 0 are left out. With --json each line is a run with all counts.

    \b
    flask --app wsgi runs --asked --limit 10
    """
    now = utcnow()
    with using_ledger():
        found = list_runs(limit, asked=asked)
    for run in found:
        click.echo(json.dumps(_item(run)) if as_json else _line(run, now))
    if not found:
        click.echo("No such runs.", err=True)


def _item(run: ReconcileRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "reconciler": run.reconciler,
        "started_at": to_iso(run.started_at),
        "finished_at": to_iso(run.finished_at),
        **{name: getattr(run, name) for name in _COUNTS},
        "error": run.error,
    }


def _line(run: ReconcileRun, now: datetime) -> str:
    counted = [f"{number:,} {name}" for name in _COUNTS if (number := getattr(run, name))]
    told = f"{run.id:>6}  {run.started_at:%Y-%m-%d %H:%M:%S}  {_length(run, now):<11}"
    return line("  ".join([told, ", ".join(counted) or "nothing due", *([run.error] if run.error else [])]))


def _length(run: ReconcileRun, now: datetime) -> str:
    if run.finished_at is not None:
        return took(run.finished_at - run.started_at)
    return "in progress" if run.is_in_progress(now) else "broken off"
