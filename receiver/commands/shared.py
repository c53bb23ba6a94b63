"""What the commands share: options, and errors in words."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import click
from werkzeug.exceptions import HTTPException

from receiver.clock import parse_since, utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import SchemaBehind

MOMENT = "90m, 2h, 3d, or an ISO 8601 moment"

_TELL_EVERY_SECONDS = 2.0

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Turn errors of the database and of bad input into a sentence for the terminal, and exit with 1."""
    try:
        yield
    except HTTPException as problem:
        raise click.ClickException(str(problem.description)) from None
    except (*DATABASE_ERRORS, SchemaBehind) as problem:
        raise click.ClickException(f"The database cannot be used: {describe(problem)}") from None


def read_moment(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """Return the moment that an option names, as MOMENT describes it."""
    if text is None:
        return None
    try:
        return parse_since(text, utcnow())
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def line(text: str) -> str:
    """Return a line of a list for the terminal: as wide as that is, and safe. In a file it is not cut."""
    told = safe(text)
    if not sys.stdout.isatty():
        return told
    width = shutil.get_terminal_size().columns
    return told if len(told) <= width else f"{told[: width - 1]}…"


def safe(text: str) -> str:
    """Return a text without what could steer the terminal: others choose prompts, ids and answers."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text
    )


class Progress:
    """Tells on standard error how far a long command is, every two seconds."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, text: str) -> None:
        """Tell it unless something was told a moment ago."""
        if time.monotonic() - self._told_at > _TELL_EVERY_SECONDS:
            self._told_at = time.monotonic()
            click.echo(text, err=True)
