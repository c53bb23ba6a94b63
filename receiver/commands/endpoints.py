"""flask --app wsgi forward endpoints | pause | resume | dismiss | show: where your app is told, by hand."""

import json
from typing import Any

import click

from receiver.clock import utcnow
from receiver.commands.forward import forward
from receiver.commands.shared import errors_in_words, json_option, line
from receiver.ledger.engine.schema import require_schema
from receiver.ledger.reading.endpoints import list_endpoints
from receiver.ledger.reading.forwards import attempts_of
from receiver.web import forward_actions
from receiver.web.api.forward_json import endpoint_json, forward_json, whole_forward_json

__all__ = ["forward"]  # the group, with these commands too


@forward.command("endpoints")
@json_option
def endpoints(as_json: bool) -> None:
    """List endpoints with their health; those in FORWARD_URL come first."""
    with errors_in_words():
        require_schema()
        items = [endpoint_json(one) for one in list_endpoints(utcnow())]
    if as_json:
        click.echo(json.dumps(items, indent=2))
        return
    for item in items:
        click.echo(_line(item))
    if not items:
        click.echo("No endpoints.", err=True)


def _line(item: dict[str, Any]) -> str:
    held = f"held since {item['held_at']}" if item["held_at"] else "open"
    return line(f"{item['id']:>6}  {held}  {item['url']}")


@forward.command("pause")
@click.argument("endpoint", type=click.IntRange(1))
@json_option
def pause(endpoint: int, as_json: bool) -> None:
    """Send nothing to an endpoint until it is resumed. Its events wait, and none is dropped."""
    with errors_in_words():
        require_schema()
        item = endpoint_json(forward_actions.pause(endpoint))
    click.echo(json.dumps(item, indent=2) if as_json else _line(item))


@forward.command("resume")
@click.argument("endpoint", type=click.IntRange(1))
@json_option
def resume(endpoint: int, as_json: bool) -> None:
    """End the hold of an endpoint: what waits goes out, oldest first."""
    with errors_in_words():
        require_schema()
        item = endpoint_json(forward_actions.resume(endpoint))
    click.echo(json.dumps(item, indent=2) if as_json else _line(item))


@forward.command("show")
@click.argument("number", type=click.IntRange(1))
def show(number: int) -> None:
    """Show a forward as JSON, with its body and its newest attempts."""
    with errors_in_words():
        require_schema()
        found = forward_actions.find_forward_or_404(number)
        told = whole_forward_json(found, attempts_of(found.id), utcnow())
    click.echo(json.dumps(told, indent=2))


@forward.command("dismiss")
@click.argument("number", type=click.IntRange(1))
@json_option
def dismiss(number: int, as_json: bool) -> None:
    """Give a pending or failed forward up for good: it is listed as dismissed, and not sent any more."""
    with errors_in_words():
        require_schema()
        item = forward_json(forward_actions.dismiss_or_409(number))
    click.echo(json.dumps(item, indent=2) if as_json else f"{number}: dismissed")
