"""flask --app wsgi deliveries: which callbacks came."""

import json
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.commands.shared import MOMENT, json_option, line, read_moment_text, to_the_second, using_ledger
from receiver.ledger.reading.deliveries import list_deliveries
from receiver.web.api.details_json import listed_delivery_json
from receiver.web.filters import VERDICTS, read_delivery_filter


@click.command("deliveries")
@click.option("--verdict", type=click.Choice(VERDICTS), help="Those that are read so.")
@click.option("--task", metavar="ID", help="Those of this task.")
@click.option("--since", callback=read_moment_text, help=f"Those that came since then: {MOMENT}.")
@click.option("--until", callback=read_moment_text, help="Those that came before then.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@json_option
@with_appcontext
def deliveries(limit: int, as_json: bool, **chosen: Any) -> None:
    """List callbacks, newest first. The pages show their bodies.

    With --json each line is a delivery, as GET /api/deliveries shows it.

    \b
    flask --app wsgi deliveries --verdict unreadable --since 1d
    """
    wanted = {name: text for name, text in chosen.items() if text is not None}
    before, is_any = None, False
    with using_ledger():
        chosen_ones = read_delivery_filter(wanted)
        while limit > 0:
            found = list_deliveries(chosen_ones, limit, before)
            for one in found.deliveries:
                item = listed_delivery_json(one)
                click.echo(json.dumps(item) if as_json else _line(item))
                is_any = True
            limit, before = limit - len(found.deliveries), found.next
            if before is None:
                break
    if not is_any:
        click.echo("No such deliveries.", err=True)


def _line(item: dict[str, Any]) -> str:
    told = f"{item['id']:>6}  {to_the_second(item['received_at'])}  {item['verdict']:<10}"
    problem = f"  {item['problem']['message']}" if item["problem"] else ""
    return line(f"{told}  {item['task_id'] or '-'}{problem}  {item['size']:,} bytes")
