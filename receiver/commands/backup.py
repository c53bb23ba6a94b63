"""flask --app wsgi backup: a copy of the SQLite file while the service runs."""

import json
import sqlite3

import click
from flask.cli import with_appcontext

from receiver.commands.shared import Progress, errors_in_words, json_option
from receiver.database_url import sqlite_path
from receiver.ledger.engine.backup import Damaged, back_up
from receiver.ledger.engine.errors import RESCUE
from receiver.ledger.engine.schema import applied_migrations, require_file
from receiver.web.current import current_settings

_ON_POSTGRESQL = (
    "The ledger is in PostgreSQL, whose own tool makes backups:"
    ' pg_dump --format=custom --file={file} "$DATABASE_URL"'
    " (directly to the server, not through a pooler; its version must not be older than the server's)."
)


@click.command("backup")
@click.argument("file")
@json_option
@with_appcontext
def backup(file: str, as_json: bool) -> None:
    """Copy the SQLite database to FILE while the service runs.

    The copy holds all that was acknowledged before it began, and is synced to the disk. It appears at once
    when it is complete. It is read once more: of a damaged database no copy is kept. A file that is there
    already is not replaced.

    \b
    flask --app wsgi backup /backups/backstop-$(date +%F).db
    """
    url = current_settings().database_url
    if not url.startswith("sqlite:"):
        raise click.ClickException(_ON_POSTGRESQL.format(file=file))
    with errors_in_words():
        require_file()
        applied_migrations()  # is it a database?
    progress = Progress()
    try:
        size = back_up(
            sqlite_path(url), file, lambda done, total: progress.tell(f"{done:,} of {total:,} pages")
        )
    except FileExistsError as problem:
        raise click.ClickException(f"{problem.filename or file} exists. Name a new file.") from None
    except Damaged as problem:
        said = f"The database is damaged, so no copy is kept. Keep the older ones, and {RESCUE}."
        raise click.ClickException(f"{said} SQLite says: {problem}") from None
    except (OSError, sqlite3.Error) as problem:
        raise click.ClickException(f"{file} cannot be written: {problem}") from None
    click.echo(json.dumps({"file": file, "bytes": size}) if as_json else f"{file}: {size:,} bytes.")
