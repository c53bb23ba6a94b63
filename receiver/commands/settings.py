"""flask --app wsgi settings: the effective settings, the schema and the sizes, as their page shows them."""

import json
from collections.abc import Iterator
from typing import Any

import click
from flask.cli import with_appcontext

from receiver.clock import to_iso, utcnow
from receiver.commands.shared import json_option, safe, using_ledger
from receiver.ledger.engine.schema import applied_migrations
from receiver.version import VERSION
from receiver.web.current import current_settings
from receiver.web.formatting import size
from receiver.web.intake import current_intake
from receiver.web.settings_shown import Shown, shown_settings
from receiver.web.watch.sizes import Sizes, sizes_of


@click.command("settings")
@json_option
@with_appcontext
def settings(as_json: bool) -> None:
    """Show the effective settings, the version and the sizes.

    Secrets are masked. Of addresses that may hold one, only the server is shown.

    \b
    flask --app wsgi settings
    """
    shown = list(shown_settings(current_settings().given))
    if not as_json:
        for told in _of_settings(shown):
            click.echo(safe(told))
    with using_ledger():
        migrations = applied_migrations()
        sizes = sizes_of(utcnow(), current_settings(), current_intake())
    if as_json:
        item = {"version": VERSION, "settings": list(map(_item, shown)), "migrations": migrations}
        click.echo(json.dumps(item | {"sizes": _sizes_json(sizes)}, indent=2))
        return
    for told in _of_ledger(migrations, sizes):
        click.echo(safe(told))


def _item(one: Shown) -> dict[str, Any]:
    return {"name": one.name, "value": one.text, "is_set": one.is_set}


def _sizes_json(sizes: Sizes) -> dict[str, Any]:
    return {
        "database_bytes": sizes.database,
        "database_bytes_a_day": sizes.a_day,
        "disk_full_at": to_iso(sizes.full_at),
        "spool_bytes": sizes.spool,
        "disks": [
            {"path": room.path, "free_bytes": room.free, "total_bytes": room.total} for room in sizes.rooms
        ],
    }


def _of_settings(shown: list[Shown]) -> Iterator[str]:
    yield f"Backstop {VERSION}"
    yield ""
    width = max(len(one.name) for one in shown)
    for one in shown:
        default = "" if one.is_set else "  (default)" if one.text else "(not set)"
        yield f"{one.name:<{width}}  {one.text}{default}"
    yield ""


def _of_ledger(migrations: list[str], sizes: Sizes) -> Iterator[str]:
    yield f"schema      current: {len(migrations)} migrations, the last is {migrations[-1]}"
    grows = "not known yet" if sizes.a_day is None else size(int(max(sizes.a_day, 0)))
    yield f"database    {size(sizes.database)}, growth a day: {grows}"
    if sizes.full_at:
        yield f"disk        full at this pace on {sizes.full_at:%Y-%m-%d}"
    yield f"spool       {size(sizes.spool)}"
    for room in sizes.rooms:
        yield f"free        {size(room.free)} of {size(room.total)} at {room.path}"
