"""Commands for the operator; `flask --app wsgi --help` lists them."""

import click
from flask import Flask

from receiver.commands.backup import backup
from receiver.commands.check import check
from receiver.commands.deliveries import deliveries
from receiver.commands.endpoints import forward
from receiver.commands.move import export, import_
from receiver.commands.prune import prune
from receiver.commands.registering import acknowledge, ask, register
from receiver.commands.reread import reread
from receiver.commands.rotate_token import rotate_token
from receiver.commands.tasks import task, tasks
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import migrate
from receiver.upstream.services import SERVICES
from receiver.web.current import current_settings


def add_commands(app: Flask) -> None:
    """Add our commands to the application's `flask` command."""
    app.cli.command("migrate")(_migrate)
    app.cli.command("callback-url")(_callback_url)
    app.cli.command("next-steps")(_next_steps)
    app.cli.add_command(check)
    app.cli.add_command(tasks)
    app.cli.add_command(task)
    app.cli.add_command(register)
    app.cli.add_command(ask)
    app.cli.add_command(acknowledge)
    app.cli.add_command(deliveries)
    app.cli.add_command(forward)
    app.cli.add_command(prune)
    app.cli.add_command(reread)
    app.cli.add_command(rotate_token)
    app.cli.add_command(backup)
    app.cli.add_command(export)
    app.cli.add_command(import_)


def _migrate() -> None:
    """Bring the database's schema up to date, through DIRECT_DATABASE_URL if that is set."""
    if direct := current_settings().direct_database_url:
        init_database(direct)
    try:
        applied = migrate()
    except (*DATABASE_ERRORS, OSError) as problem:
        raise click.ClickException(f"The database cannot be migrated: {describe(problem)}") from None
    for name in applied:
        click.echo(f"Applied {name}.")
    if not applied:
        click.echo("The schema is up to date.")


@click.option("--service", type=click.Choice(tuple(SERVICES)), help="Name the tasks' service in the URL.")
def _callback_url(service: str | None) -> None:
    """Print the callback URL for Ace Data Cloud. It contains the secret token."""
    settings = current_settings()
    if settings.public_url is None:
        raise click.ClickException("PUBLIC_URL is not set, for example https://backstop.example.com")
    query = f"?service={service}" if service else ""
    click.echo(f"{settings.public_url}/callbacks/{settings.callback_tokens[0]}{query}")


def _next_steps() -> None:
    """Print the status page's address and the settings that are still missing."""
    settings = current_settings()
    click.echo(f"The status page: http://127.0.0.1:{settings.port}/ (sign in with the API_KEY in .env)")
    if settings.api_token is None:
        click.echo(
            "Still missing in .env: ACEDATACLOUD_API_TOKEN, from https://platform.acedata.cloud."
            " Until then no reconciler runs: callbacks are kept, but lost ones are not recovered."
        )
    if settings.public_url is None:
        click.echo(
            "Still missing in .env: PUBLIC_URL, the address at which Ace Data Cloud can reach this machine."
            " Then `flask --app wsgi callback-url` prints the callback URL for your submissions."
        )
