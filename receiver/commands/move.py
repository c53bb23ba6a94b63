"""flask --app wsgi export and import: the whole ledger as JSON Lines, and back."""

import gzip
import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import BinaryIO, cast

import click
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.shared import Progress, json_option, using_ledger
from receiver.ledger.engine.db import init_database
from receiver.ledger.moving.exporting import Moved, Tell, export_ledger
from receiver.ledger.moving.importing import NotEmpty, import_ledger
from receiver.ledger.moving.lines import BadFile
from receiver.web.current import current_settings

# Only its owner may read it: it holds all that the ledger holds.
_MODE = 0o600


@click.command("export")
@click.argument("file", default="-")
@json_option
@with_appcontext
def export(file: str, as_json: bool) -> None:
    """Write the whole ledger to FILE as JSON Lines.

    Without FILE it goes to standard output. A file whose name ends in .gz is compressed. It holds the ledger
    as it was when the export began: callbacks may come meanwhile. `import` reads it into SQLite or
    PostgreSQL, and notices if it was cut or changed.

    It holds prompts, results, the bodies of callbacks and the callback URLs of your apps. Keep it as safe as
    the database. It holds no API key, no token and no secret of the settings.

    \b
    flask --app wsgi export backstop.jsonl.gz
    """
    with using_ledger(), _new_file(file) as target:
        moved = export_ledger(target, utcnow(), _tell())
    click.echo(_told(moved, "exported", as_json), err=file == "-")


@click.command("import")
@click.argument("file")
@json_option
@with_appcontext
def import_(file: str, as_json: bool) -> None:
    """Fill an empty ledger with an export.

    FILE was written by `export`, or is - for standard input. First run `migrate` with the version of Backstop
    that wrote it, and stop the reconciler. All of FILE is imported, or nothing. A web process may run:
    callbacks that come meanwhile wait in its spool.
    DIRECT_DATABASE_URL is used if that is set.

    \b
    flask --app wsgi migrate
    flask --app wsgi import backstop.jsonl.gz
    """
    if direct := current_settings().direct_database_url:
        init_database(direct)
    with using_ledger():
        try:
            with _open(file) as source:
                moved = import_ledger(source, _tell())
        except (BadFile, NotEmpty) as problem:
            raise click.ClickException(f"{problem} Nothing was imported.") from None
    click.echo(_told(moved, "imported", as_json))


def _tell() -> Tell:
    progress = Progress()
    return lambda table, rows: progress.tell(f"{rows:,} rows, now of the table {table}")


def _told(moved: Moved, done: str, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(moved), indent=2)
    lines = [f"  {table}: {number:,}" for table, number in moved.rows.items()]
    return "\n".join([f"{sum(moved.rows.values()):,} rows {done}, schema {moved.schema}.", *lines])


@contextmanager
def _new_file(name: str) -> Iterator[BinaryIO]:
    """Make a file, and sync it at the end. Remove it when that fails."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with open(name, "xb", opener=_open_for_owner) as file, _removed_on_failure(name):
            with _packed(file) if name.endswith(".gz") else nullcontext(file) as target:
                yield target
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise click.ClickException(f"{name} exists. Name a new file.") from None
    except OSError as problem:
        raise click.ClickException(f"{name} cannot be written: {problem.strerror}.") from None


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, _MODE)


@contextmanager
def _removed_on_failure(name: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.unlink(name)
        raise


def _packed(file: BinaryIO) -> AbstractContextManager[BinaryIO]:
    return cast(AbstractContextManager[BinaryIO], gzip.GzipFile(fileobj=file, mode="wb"))


@contextmanager
def _open(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
            yield cast(BinaryIO, file)
    except OSError as problem:
        raise click.ClickException(f"{name} cannot be read: {problem.strerror}.") from None
