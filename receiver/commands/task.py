"""flask --app wsgi task: what the ledger knows of one task, in the terminal."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.shared import json_option, paragraph, to_the_second, using_ledger
from receiver.ledger.models import Task
from receiver.ledger.task_json import task_json
from receiver.web.api.details_json import details_json
from receiver.web.current import current_settings
from receiver.web.formatting import heading, next_lookup, trust
from receiver.web.response_view import failure_of, links_of
from receiver.web.task_actions import find_or_404
from receiver.web.watch.hindrances import hindrance_of


@click.command("task")
@click.argument("task_id", metavar="ID")
@json_option
@with_appcontext
def task(task_id: str, as_json: bool) -> None:
    """Show one task: its results and its whole story.

    It says how far the status can be trusted, and when upstream is asked next. With --json it is as
    GET /api/tasks/ID shows it.

    \b
    flask --app wsgi task 7489df4c-ef03-4de0-b598-e9a590793434
    """
    with using_ledger():
        found = find_or_404(task_id)
        details = details_json(found)
    if as_json:
        click.echo(json.dumps(task_json(found) | details, indent=2))
        return
    for told in _story(found, details, utcnow()):
        click.echo(told)


def _story(task: Task, details: Mapping[str, Any], now: datetime) -> Iterator[str]:
    yield paragraph(f"{task.id}: {task.status}")
    if (name := heading(task)) != task.id:
        yield paragraph(name)
    yield ""
    for name, value in _facts(task, details, now):
        yield paragraph(f"{name:<14}{value}", indent=14)
    yield ""
    for event in details["timeline"]:
        yield paragraph(f"{to_the_second(event['at'])}  {event['event']:<13}  {event['detail']}", indent=21)


def _facts(task: Task, details: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    hindrance = hindrance_of(task, now, current_settings().reconcile_interval)
    shown = {
        "service": "/".join(filter(None, (task.service, task.type))),
        "ref": task.ref,
        "trace id": task.trace_id,
        "key": task.api_key,
        "callback to": details["callback_url"],
        "trust": trust(task),
        "next look-up": next_lookup(task, now, hindrance),
    }
    yield from ((name, value) for name, value in shown.items() if value)
    if failure := failure_of(task):
        yield "error", f"{failure.code}: {failure.message}"
    for link in links_of(task):
        yield "result", link.url
