"""flask --app wsgi register: tell Backstop about submitted tasks."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TextIO

import click
from flask.cli import with_appcontext

from receiver.clock import utcnow
from receiver.commands.shared import Progress, json_option, line, using_ledger
from receiver.ledger import store
from receiver.ledger.registration import Registration
from receiver.upstream.results import parse_json
from receiver.upstream.services import SERVICES
from receiver.web.api.registrations import MOST_TASKS, read_registration
from receiver.web.current import current_settings, current_timetable
from receiver.web.errors import BadInput
from receiver.web.formatting import shown

_NO_ID = re.compile(r'^[\["]|\s')  # a list or a text in JSON, or several words
# Files from Windows may begin with a byte order mark. A line that is not UTF-8 is reported by its number.
_FILE = click.File(encoding="utf-8-sig", errors="surrogateescape")


@click.command("register")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--file", type=_FILE, help="More tasks, one a line: ids or JSON objects. - is stdin.")
@click.option(
    "--service",
    type=click.Choice(tuple(SERVICES)),
    metavar="SERVICE",
    help="The service of tasks that name none.",
)
@click.option("--type", metavar="TYPE", help="The type of tasks that name none, such as imagine.")
@click.option("--callback-url", metavar="URL", help="Where their results go, for tasks that name no URL.")
@json_option
@with_appcontext
def register(ids: tuple[str, ...], file: TextIO | None, as_json: bool, **given: str | None) -> None:
    """Register submitted tasks, to recover lost callbacks.

    A line of a file is an id, or a JSON object with the fields of POST /api/tasks. A bad line is
    reported and left out, and the exit code is 1. Registering a task again is harmless.

    \b
    flask --app wsgi register 5f1c... 9a0e... --type imagine
    flask --app wsgi register --file tasks.txt --type videos
    """
    if not ids and file is None:
        raise click.UsageError("Name the tasks, or a file with --file.")
    defaults = {name: value for name, value in given.items() if value is not None}
    told: dict[str, int] = {"registered": 0, "new": 0, "bad": 0}
    with using_ledger():
        _register_all(_items(ids, file), defaults, told)
    click.echo(json.dumps(told) if as_json else _in_words(told))
    if told["bad"]:
        click.echo(f"{told['bad']:,} not registered, for the reasons above.", err=True)
        raise SystemExit(1)


def _in_words(told: dict[str, int]) -> str:
    known = told["registered"] - told["new"]
    return f"{told['registered']:,} registered: {told['new']:,} new, {known:,} known before."


def _items(ids: Sequence[str], file: TextIO | None) -> Iterator[tuple[str, str]]:
    """Yield where each task stands, for messages, and its text."""
    yield from (("", task_id) for task_id in ids)
    for number, text in enumerate(file or (), start=1):
        if text.strip():
            yield f"line {number}: ", text.strip()


def _register_all(items: Iterator[tuple[str, str]], defaults: dict[str, str], told: dict[str, int]) -> None:
    progress = Progress()
    while some := list(islice(items, MOST_TASKS)):
        _register(some, defaults, told)
        progress.tell(f"{told['registered']:,} registered")


def _register(some: Iterable[tuple[str, str]], defaults: dict[str, str], told: dict[str, int]) -> None:
    good: list[tuple[str, Registration]] = []
    for where, text in some:
        try:
            good.append((where, read_registration(_read(text, defaults, where), where)))
        except BadInput as problem:
            _leave_out(str(problem.description), told)
    try:
        told["new"] += _write([registration for _, registration in good])
        told["registered"] += len(good)
    except store.OtherService:  # find out which
        for where, registration in good:
            _register_alone(where, registration, told)


def _register_alone(where: str, registration: Registration, told: dict[str, int]) -> None:
    try:
        told["new"] += _write([registration])
        told["registered"] += 1
    except store.OtherService as problem:
        _leave_out(f"{where}{problem}", told)


def _write(registrations: Sequence[Registration]) -> int:
    when = current_settings().forward_when
    return store.register(registrations, utcnow(), timetable=current_timetable(), forward_when=when)


def _read(text: str, defaults: dict[str, str], where: str) -> Any:
    if not text.startswith("{") and not _NO_ID.search(text):
        return defaults | {"id": text}
    try:
        return defaults | dict(parse_json(text))
    except (ValueError, TypeError):
        raise BadInput(
            f"{where}“{shown(text, 60)}” is neither an id, which has no spaces, nor a JSON object."
        ) from None


def _leave_out(problem: str, told: dict[str, int]) -> None:
    told["bad"] += 1
    click.echo(line(problem), err=True)
