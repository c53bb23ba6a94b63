"""flask --app wsgi tasks: the list of tasks, in the terminal."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.commands.shared import MOMENT, json_option, line, read_moment_text, using_ledger
from receiver.ledger.models import Task
from receiver.ledger.reading.listing import TaskFilter, list_tasks
from receiver.ledger.task_json import task_json
from receiver.upstream.results import STATUSES
from receiver.upstream.services import SERVICES
from receiver.web.filters import MOST_LISTED, SETTLERS, read_filter
from receiver.web.formatting import heading

_SERVICE = click.Choice(tuple(SERVICES))


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose tasks: the parameters of the API's list."""
    options = (
        click.option("--status", type=click.Choice(STATUSES), help="Those with this status."),
        click.option("--service", type=_SERVICE, metavar="SERVICE", help="Those of this service."),
        click.option("--type", metavar="TYPE", help="Those of this type, such as imagine."),
        click.option("--key", metavar="NAME", help="Those submitted or registered with this key."),
        click.option("--settled-by", type=click.Choice(SETTLERS), help="Those that this witness settled."),
        click.option("--disputed/--undisputed", default=None, help="Those that are disputed, or are not."),
        click.option("--unacknowledged", is_flag=True, help="Disputed ones that nobody acknowledged."),
        click.option("--missed", is_flag=True, help="Those whose callback never came, found by a look-up."),
        click.option(
            "--since", callback=read_moment_text, help=f"Those first heard of since then: {MOMENT}."
        ),
        click.option(
            "--until", callback=read_moment_text, help=f"Those first heard of before then: {MOMENT}."
        ),
        click.option("--search", "q", metavar="TEXT", help="By id, ref, trace id, or words of the prompt."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("tasks")
@_filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option("--all", "all_", is_flag=True, help="All of them, whatever the limit.")
@json_option
@with_appcontext
def tasks(limit: int, all_: bool, as_json: bool, **chosen: Any) -> None:
    """List tasks, newest first.

    With --json each line is a task, as GET /api/tasks shows it.

    \b
    flask --app wsgi tasks --status pending --since 2h
    """
    with using_ledger():
        is_any = False
        for task in _chosen(_wanted(chosen), None if all_ else limit):
            click.echo(json.dumps(task_json(task)) if as_json else _line(task))
            is_any = True
    if not is_any:
        click.echo("No such tasks.", err=True)


def _wanted(chosen: Mapping[str, Any]) -> TaskFilter:
    given = {name: value for name, value in chosen.items() if value is not None and value is not False}
    if chosen["disputed"] is not None:
        given["disputed"] = "true" if chosen["disputed"] else "false"
    if given.pop("unacknowledged", False):
        given["acknowledged"] = "false"
    return read_filter(given | ({"missed": "true"} if chosen["missed"] else {}))


def _chosen(wanted: TaskFilter, limit: int | None) -> Iterator[Task]:
    """Yield tasks page by page, so that memory stays bounded."""
    before = None
    while limit is None or limit > 0:
        found = list_tasks(wanted, MOST_LISTED if limit is None else min(limit, MOST_LISTED), before)
        yield from found.tasks
        limit = None if limit is None else limit - len(found.tasks)
        before = found.next
        if before is None:
            return


def _line(task: Task) -> str:
    what = "/".join(filter(None, (task.service, task.type)))
    name = heading(task)
    told = f"{task.created_at:%Y-%m-%d %H:%M:%S}  {task.status:<9}  {task.id}  {what}"
    return line(told if name == task.id else f"{told}  {name}")
