"""flask --app wsgi forward list | show | dismiss: the forwards, by hand."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.shared import (
    MOMENT,
    json_option,
    line,
    paragraph,
    read_moment_text,
    tell,
    tell_list,
    to_the_second,
    using_ledger,
)
from receiver.ledger.models import Forward
from receiver.ledger.reading.forwards import STATES, ForwardFilter, attempts_of, list_forwards
from receiver.web import forward_actions
from receiver.web.api.forward_json import forward_json, whole_forward_json
from receiver.web.filters import FORWARD_TYPES, read_forward_filter
from receiver.web.formatting import counted


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose forwards."""
    options = (
        click.option("--status", type=click.Choice(STATES), help="Those that are in this state."),
        click.option("--endpoint", metavar="N", help="Those to the endpoint with this number."),
        click.option("--type", type=click.Choice(FORWARD_TYPES), help="Those of this type of event."),
        click.option("--task", metavar="ID", help="Those about this task."),
        click.option("--cause", metavar="TEXT", help="Those whose last attempt failed of this."),
        click.option("--since", callback=read_moment_text, help=f"Those made since then: {MOMENT}."),
        click.option("--until", callback=read_moment_text, help=f"Those made before then: {MOMENT}."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def wanted(chosen: Mapping[str, str | None]) -> ForwardFilter:
    """Return the filter that the options make. Raises BadInput."""
    return read_forward_filter({name: value for name, value in chosen.items() if value is not None})


@click.command("list")
@filters
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@json_option
@with_appcontext
def list_them(limit: int, as_json: bool, **chosen: str | None) -> None:
    """List forwards, newest first.

    \b
    flask --app wsgi forward list --status failed --since 1d
    """
    with using_ledger():
        items = [forward_json(one) for one in _first(wanted(chosen), limit)]
    tell_list(items, _line, "No forwards.", as_json)


def _line(item: Mapping[str, Any]) -> str:
    told = f"{item['id']:>6}  {to_the_second(item['created_at'])}  {item['status']:<9}"
    what = f"{item['type'].removeprefix('task.'):<9}  {item['task_id']}"
    tried = counted(item["attempts"], "attempt")
    return line("  ".join(filter(None, (told, what, item["cause"], tried, item["url"]))))


def _first(chosen: ForwardFilter, limit: int) -> Iterator[Forward]:
    before = None
    while limit > 0:
        found = list_forwards(chosen, limit, before)
        yield from found.forwards
        limit -= len(found.forwards)
        before = found.next
        if before is None:
            return


@click.command("show")
@click.argument("number", type=click.IntRange(1))
@json_option
@with_appcontext
def show(number: int, as_json: bool) -> None:
    """Show a forward with its newest attempts. With --json its body too.

    \b
    flask --app wsgi forward show 17
    """
    with using_ledger():
        found = forward_actions.find_forward_or_404(number)
        item = whole_forward_json(found, attempts_of(found.id), utcnow())
    if as_json:
        click.echo(json.dumps(item, indent=2))
        return
    for told in _story(item):
        click.echo(paragraph(told, indent=14))


def _story(item: Mapping[str, Any]) -> Iterator[str]:
    yield f"{item['id']}: {item['status']}"
    following = item["next"]
    shown = {
        "event": f"{item['type']}, number {item['sequence']} of task {item['task_id']}",
        "to": f"{item['url']} (endpoint {item['endpoint']})",
        "webhook id": item["webhook_id"],
        "made": item["created_at"],
        "failed of": item["cause"],
        "next attempt": following and f"{following['at']}, {following['because']}",
    }
    yield from (f"{name:<14}{value}" for name, value in shown.items() if value)
    yield ""
    for attempt in item["attempts"]:
        outcome = attempt["error"] or f"HTTP {attempt['status']}"
        yield f"{attempt['began_at']}  {outcome} after {attempt['milliseconds']} ms"


@click.command("dismiss")
@click.argument("number", type=click.IntRange(1))
@json_option
@with_appcontext
def dismiss(number: int, as_json: bool) -> None:
    """Give a pending or failed forward up for good. It is listed as dismissed, and not sent any more.

    \b
    flask --app wsgi forward dismiss 17
    """
    with using_ledger():
        item = forward_json(forward_actions.dismiss_or_409(number))
    tell(item, f"{number}: dismissed", as_json)
