"""flask --app wsgi probe and discover: have upstream asked whether its pause is over, and what it lists."""

from collections.abc import Callable
from datetime import datetime

import click
from flask.cli import with_appcontext

from receiver.clock import to_iso
from receiver.commands.shared import json_option, paragraph, tell, using_ledger
from receiver.web import upstream_actions
from receiver.web.current import current_settings
from receiver.web.watch.hindrances import absence_now


@click.command("probe")
@json_option
@with_appcontext
def probe(as_json: bool) -> None:
    """Find out at once whether upstream's pause is over.

    While upstream refuses look-ups, the reconciler probes after 30 s, doubling to 15 min. After you have
    mended the account or the token this makes the next probe due now. Upstream's answer decides: a pause that
    is not over goes on.

    \b
    flask --app wsgi probe
    """
    _order(upstream_actions.probe_or_409, "the reconciler probes within seconds", as_json)


@click.command("discover")
@json_option
@with_appcontext
def discover(as_json: bool) -> None:
    """Look for your tasks in upstream's lists now.

    The reconciler does so every 10 minutes by itself. It goes on where it ended. To look further back use
    `python -m reconcile --discover SINCE`.

    \b
    flask --app wsgi discover
    """
    _order(upstream_actions.discover_or_409, "the reconciler discovers within a minute", as_json)


def _order(give: Callable[[], datetime], words: str, as_json: bool) -> None:
    """Give an order, and say who follows it, or that nobody does."""
    with using_ledger():
        ordered_at = give()
        away = absence_now(ordered_at, current_settings().reconcile_interval)
    if away:
        click.echo(paragraph(f"Nobody follows it yet: {away}. Start it: python -m reconcile"), err=True)
    tell({"ordered_at": to_iso(ordered_at)}, "ordered" if away else f"ordered: {words}", as_json)
