"""flask --app wsgi migrate, callback-url and next-steps: what a deployment needs first."""

import click
from flask.cli import with_appcontext

from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import WHO_RUNS_ON_IT, missing_file, unknown_migrations
from receiver.ledger.engine.schema import migrate as apply_migrations
from receiver.upstream.services import SERVICES
from receiver.web.current import current_settings


@click.command("migrate")
@with_appcontext
def migrate() -> None:
    """Bring the database's schema up to date.

    It uses DIRECT_DATABASE_URL if that is set. Any number of processes may run it at once.

    \b
    flask --app wsgi migrate
    """
    if direct := current_settings().direct_database_url:
        init_database(direct)
    missing = missing_file()
    try:
        applied = apply_migrations(lambda name: click.echo(f"Applied {name}."))
        unknown = unknown_migrations()
    except (*DATABASE_ERRORS, OSError) as problem:
        raise click.ClickException(f"The database cannot be migrated: {describe(problem)}") from None
    if missing:
        click.echo(f"Made {missing}: a new ledger, with nothing in it.")
    if unknown:
        click.echo(
            f"The schema is of a newer version of Backstop: its last migration is {unknown[-1]}."
            f" {WHO_RUNS_ON_IT}"
        )
    elif not applied:
        click.echo("The schema is up to date.")


@click.command("callback-url")
@click.option(
    "--service",
    type=click.Choice(tuple(SERVICES)),
    metavar="SERVICE",
    help="Name the tasks' service in the URL.",
)
@with_appcontext
def callback_url(service: str | None) -> None:
    """Print the callback URL for your submissions. It contains the secret token.

    \b
    flask --app wsgi callback-url --service NAME
    """
    settings = current_settings()
    if settings.public_url is None:
        raise click.ClickException("PUBLIC_URL is not set, for example https://backstop.example.com")
    query = f"?service={service}" if service else ""
    click.echo(f"{settings.public_url}/callbacks/{settings.callback_tokens[0]}{query}")


@click.command("next-steps")
@with_appcontext
def next_steps() -> None:
    """Say which settings are missing, and where the pages are.

    \b
    flask --app wsgi next-steps
    """
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
