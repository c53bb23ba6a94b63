"""flask --app wsgi events: what happened to tasks, in order."""

import json
import time
from collections.abc import Iterator
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.commands.shared import json_option, line, to_the_second, using_ledger
from receiver.ledger.models import Event, Task
from receiver.ledger.reading.events import list_events, newest_event
from receiver.web.api.events import event_item, require_known
from receiver.web.filters import MOST_LISTED

_LOOK_EVERY_SECONDS = 1.0


@click.command("events")
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="N",
    help="Those that follow event N; 0 is the beginning. With --follow the newest is the default.",
)
@click.option("--follow", is_flag=True, help="Go on with each new event until Ctrl-C.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="At most so many: 50, or with --follow all."
)
@json_option
@with_appcontext
def events(after: int | None, follow: bool, limit: int | None, as_json: bool) -> None:
    """List what happened to tasks, oldest first, or follow it.

    With --json each line is an event, as GET /api/events shows it. --after goes on from its id.

    \b
    flask --app wsgi events --after 1200 --limit 20
    flask --app wsgi events --follow
    """
    with using_ledger():
        begin = after if after is not None else newest_event() if follow else 0
        require_known(begin)
        is_any = _tell(_events(begin, limit if limit or follow else 50, follow), as_json)
    if not is_any and not follow:
        click.echo("No such events.", err=True)


def _tell(found: Iterator[tuple[Event, Task | None]], as_json: bool) -> bool:
    is_any = False
    try:
        for event, task in found:
            item = event_item(event, task)
            click.echo(json.dumps(item) if as_json else _line(item))
            is_any = True
    except KeyboardInterrupt:
        pass  # how to end --follow
    return is_any


def _events(after: int, limit: int | None, follow: bool) -> Iterator[tuple[Event, Task | None]]:
    left = limit
    while left is None or left > 0:
        found = list_events(after, MOST_LISTED if left is None else min(left, MOST_LISTED))
        yield from found
        if found:
            after, left = found[-1][0].id, None if left is None else left - len(found)
        elif follow:
            _wait()
        else:
            return


def _wait() -> None:
    time.sleep(_LOOK_EVERY_SECONDS)


def _line(item: dict[str, Any]) -> str:
    task = item["data"]["task"]
    told = f"{item['id']:>6}  {to_the_second(item['timestamp'])}  {item['type'].removeprefix('task.'):<9}"
    settled_by = f"by {item['settled_by']}" if item["settled_by"] else ""
    return line("  ".join(filter(None, (told, task["id"], settled_by, task.get("ref")))))
