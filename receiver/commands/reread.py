"""flask --app wsgi reread: reads stored deliveries again, after a parser was mended."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

import click
from flask import current_app
from flask.cli import with_appcontext

from receiver.clock import to_iso, utcnow
from receiver.commands.shared import MOMENT, Progress, json_option, read_moment, using_ledger
from receiver.ledger.rereading import Chosen, Reread, Rules
from receiver.ledger.rereading import reread as read_again
from receiver.web.current import current_settings, paces_of
from receiver.web.filters import VERDICTS, read_delivery_filter


@dataclass(slots=True)
class _Total:
    """The sum of all portions. `reached` is None while nothing was looked at."""

    dry_run: bool
    complete: bool = False
    reached: datetime | None = None
    read: int = 0
    partial: int = 0
    tasks: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, some: Reread) -> None:
        self.reached = some.reached
        self.read += some.read
        self.partial += some.partial
        self.tasks += some.tasks
        self.changes += some.changes


@click.command("reread")
@click.option("--since", required=True, callback=read_moment, help=f"Those that came since then: {MOMENT}.")
@click.option("--until", callback=read_moment, help="Those that came before then.")
@click.option("--task", metavar="ID", help="Those of this task.")
@click.option("--verdict", "verdicts", type=click.Choice(VERDICTS), multiple=True, help="Those read so now.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
@with_appcontext
def reread(
    since: datetime,
    until: datetime | None,
    task: str | None,
    verdicts: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Read stored deliveries again, after a parser was mended.

    Their bytes go through the same door as when they came. A delivery that was unreadable and names a task
    now settles it, and your app is told. A delivery keeps its time, its bytes and its first reading.

    Ctrl-C stops it. What has been read again stays so. To continue, give --since the moment that is printed.

    \b
    flask --app wsgi reread --since 7d --verdict unreadable --dry-run
    """
    total = _Total(dry_run)
    with using_ledger():
        wanted = read_delivery_filter({} if task is None else {"task": task})
        _read_until_stopped(Chosen(since, until or utcnow(), wanted.task, frozenset(verdicts)), total)
    click.echo(json.dumps(_as_json(total), indent=2) if as_json else _in_words(total))
    if not total.complete:
        raise SystemExit(1)


def _read_until_stopped(chosen: Chosen, total: _Total) -> None:
    try:
        _read(chosen, total)
        total.complete = True
    except KeyboardInterrupt:
        pass
    finally:
        if not total.complete:
            reached = to_iso(total.reached or chosen.since)
            click.echo(f"Stopped. Go on with --since {reached}", err=True)


def _read(chosen: Chosen, total: _Total) -> None:
    settings, paces = current_settings(), paces_of(current_app)
    paces.read()
    rules = Rules(paces.timetable, settings.confirm_callbacks, settings.max_body_bytes)
    progress = Progress()
    for some in read_again(chosen, rules, keep=not total.dry_run):
        total.add(some)
        differently = total.changes.total()
        progress.tell(f"{to_iso(some.reached)}: {total.read:,} read, {differently:,} differently")


def _in_words(total: _Total) -> str:
    lines = [f"{total.read:,} deliveries read again, {total.changes.total():,} of them differently now."]
    if total.dry_run:
        lines.insert(0, "Nothing was changed: without --dry-run this is what comes of it.")
    for (before, after), number in sorted(total.changes.items()):
        lines.append(f"  {before} -> {after}: {number:,}")
    lines.append(f"{total.tasks:,} tasks changed.")
    if total.partial:
        lines.append(f"{total.partial:,} others stay as they are: only a part of their bytes was kept.")
    return "\n".join(lines)


def _as_json(total: _Total) -> dict[str, object]:
    changes = [
        {"before": before, "after": after, "deliveries": number}
        for (before, after), number in sorted(total.changes.items())
    ]
    return {
        "dry_run": total.dry_run,
        "complete": total.complete,
        "reached": to_iso(total.reached),
        "read": total.read,
        "differently": total.changes.total(),
        "changes": changes,
        "tasks": total.tasks,
        "partial": total.partial,
    }
