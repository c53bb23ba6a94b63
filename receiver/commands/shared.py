"""What the commands share: options, errors in words, and lines for the terminal."""

import json
import shutil
import sys
import textwrap
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import accumulate
from typing import Any

import click
from werkzeug.exceptions import HTTPException

from receiver.clock import parse_since, to_iso, utcnow
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.engine.schema import SchemaBehind, require_schema

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


@contextmanager
def using_ledger() -> Iterator[None]:
    """Require the ledger's schema for the block, and turn its errors into words."""
    with errors_in_words():
        require_schema()
        yield


def tell(item: dict[str, Any], words: str, as_json: bool) -> None:
    """Print an item of the API, as JSON or in words."""
    click.echo(json.dumps(item, indent=2) if as_json else words)


def tell_list(
    items: Sequence[dict[str, Any]], line_of: Callable[[dict[str, Any]], str], none: str, as_json: bool
) -> None:
    """Print items of the API as JSON, or a line for each; without items print `none`."""
    if as_json:
        click.echo(json.dumps(items, indent=2))
        return
    for item in items:
        click.echo(line_of(item))
    if not items:
        click.echo(none, err=True)


def read_moment(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    """Return the moment that an option names, as MOMENT describes it."""
    if text is None:
        return None
    try:
        return parse_since(text, utcnow())
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def read_moment_text(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Return the moment that an option names as the filters of the lists read it."""
    return to_iso(read_moment(context, parameter, text))


def to_the_second(moment: str) -> str:
    """Return a moment of the API's JSON in the form of the terminal's lists: 2026-01-31 12:00:00, in UTC."""
    return f"{moment[:10]} {moment[11:19]}"


def line(text: str) -> str:
    """Return a line of a list, made safe. On a terminal it is cut to the width."""
    told = safe(text)
    return fit(told, shutil.get_terminal_size().columns) if sys.stdout.isatty() else told


def paragraph(text: str, indent: int = 0) -> str:
    """Return a text, made safe. On a terminal it is wrapped; all lines except the first get the `indent`."""
    told = safe(text)
    if not sys.stdout.isatty():
        return told
    columns = shutil.get_terminal_size().columns
    return textwrap.fill(
        told, columns, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )


def fit(text: str, columns: int) -> str:
    """Cut a printable text to so many columns of a terminal. "…" marks the cut."""
    ends = list(accumulate(map(_columns, text)))
    if not ends or ends[-1] <= columns:
        return text
    return f"{text[: bisect_right(ends, columns - 1)]}…"


def _columns(sign: str) -> int:
    if unicodedata.category(sign) in {"Mn", "Me"}:  # combines with the sign before it
        return 0
    return 2 if unicodedata.east_asian_width(sign) in {"W", "F"} else 1


def safe(text: str) -> str:
    """Escape what could steer the terminal: strangers write prompts, ids and answers."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text
    )


class Progress:
    """Reports on standard error every two seconds how far a long command is."""

    def __init__(self) -> None:
        self._told_at = time.monotonic()

    def tell(self, text: str) -> None:
        """Print the text, unless another one was printed a moment ago."""
        if time.monotonic() - self._told_at > _TELL_EVERY_SECONDS:
            self._told_at = time.monotonic()
            click.echo(text, err=True)
