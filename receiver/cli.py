"""Commands for the operator; `flask --app wsgi --help` lists them."""

import click
from flask import Flask
from flask.cli import AppGroup

from receiver.commands.backup import backup
from receiver.commands.begin import callback_url, migrate, next_steps
from receiver.commands.check import check
from receiver.commands.deliveries import deliveries
from receiver.commands.events import events
from receiver.commands.forward import forward
from receiver.commands.move import export, import_
from receiver.commands.prune import prune
from receiver.commands.registering import register
from receiver.commands.reread import reread
from receiver.commands.rotate_token import rotate_token
from receiver.commands.runs import runs
from receiver.commands.settings import settings
from receiver.commands.status import status
from receiver.commands.steering import acknowledge, ask
from receiver.commands.task import task
from receiver.commands.tasks import tasks
from receiver.commands.upstream import discover, probe

# By purpose, in the order in which --help lists them.
_GROUPS: dict[str, tuple[click.Command, ...]] = {
    "Begin": (migrate, callback_url, next_steps),
    "Watch": (status, check),
    "Look": (tasks, task, deliveries, events, runs, settings),
    "Act": (register, ask, acknowledge, forward, probe, discover),
    "Keep": (prune, backup, export, import_, reread, rotate_token),
}


class _Commands(AppGroup):
    """Our commands. Flask's --help would list them all together. Ours come in groups below it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names for completion, and none for --help: there the epilog lists them."""
        if ctx.resilient_parsing:
            return super().list_commands(ctx)
        ctx.command.epilog = _overview(ctx)
        return []


def add_commands(app: Flask) -> None:
    """Add our commands to the application's `flask` command."""
    app.cli = _Commands(app.name)
    for commands in _GROUPS.values():
        for command in commands:
            app.cli.add_command(command)


def _overview(ctx: click.Context) -> str:
    """Return our commands in groups, each with its first sentence. \b keeps the lines of a paragraph."""
    names = max(len(str(one.name)) for commands in _GROUPS.values() for one in commands)
    room = ctx.make_formatter().width - names - 6
    return "\n\n".join(
        "\n".join(["\b", f"{title}:", *(f"  {_row(one, names, room)}" for one in commands)])
        for title, commands in _GROUPS.items()
    )


def _row(command: click.Command, names: int, room: int) -> str:
    return f"{command.name:<{names}}  {command.get_short_help_str(room)}"
