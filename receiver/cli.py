"""The operator's commands: flask --app wsgi migrate | callback-url."""

import click
from flask import Flask

from receiver.ledger.db import DATABASE_AWAY, describe, migrate
from receiver.web.settings import current_settings


def add_commands(app: Flask) -> None:
    """Give the flask command of this application its commands."""
    app.cli.command("migrate")(_migrate)
    app.cli.command("callback-url")(_callback_url)


def _migrate() -> None:
    """Bring the database's schema up to date."""
    try:
        applied = migrate()
    except DATABASE_AWAY as problem:
        raise click.ClickException(f"The database cannot be migrated: {describe(problem)}") from None
    for name in applied:
        click.echo(f"Applied {name}.")
    if not applied:
        click.echo("The schema is up to date.")


def _callback_url() -> None:
    """Print the callback URL to give to Ace Data Cloud. It holds the secret token."""
    settings = current_settings()
    if settings.public_url is None:
        raise click.ClickException("PUBLIC_URL is not set, for example https://backstop.example.com")
    click.echo(f"{settings.public_url}/callbacks/{settings.callback_tokens[0]}")
