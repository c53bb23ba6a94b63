"""Fills an empty ledger with an export, in one transaction: an import that fails leaves nothing behind.

Rows are written as they are, those of events, totals and counters too. So the triggers that write these are
off meanwhile. Other processes cannot write: callbacks wait in the spool, and follow afterwards.
"""

from collections.abc import Iterator
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, BinaryIO

from peewee import Model

from receiver.ledger.engine.bulk import continue_after, replacing, write_rows
from receiver.ledger.engine.schema import applied_migrations
from receiver.ledger.models import MODELS, Delivery, Event, Forward, Submission, Task
from receiver.ledger.moving.columns import from_json
from receiver.ledger.moving.exporting import Moved, Tell
from receiver.ledger.moving.lines import END, BadFile, read

_BY_NAME: dict[str, type[Model]] = {model._meta.table_name: model for model in MODELS}
# What a process leaves in a new ledger by itself is in the other tables, and is replaced.
_OF_USERS = (Task, Delivery, Event, Forward, Submission)
# One statement writes so many rows: PostgreSQL notes each in memory, to check its references afterwards.
_ROWS_AT_ONCE = 5000


class NotEmpty(RuntimeError):
    """The ledger holds something already."""


def import_ledger(file: BinaryIO, tell: Tell) -> Moved:
    """Write an export's rows to the ledger, which must be empty and of the same schema.

    Raises BadFile, when nothing was imported, and NotEmpty.
    """
    contents = read(file)
    header = _header(next(contents))
    with replacing(MODELS):
        _require_empty()
        for model in reversed(MODELS):
            model.delete().execute()
        end = _write(contents, tell)
        for name, number in header.pop("last_numbers").items():
            continue_after(_BY_NAME[name], number)
    return Moved(**header, **end)


def _header(first: dict[str, Any]) -> dict[str, Any]:
    header: dict[str, Any] = first["backstop"]
    schema = applied_migrations()[-1]
    if header["schema"] != schema:
        raise BadFile(
            f"The file has the schema {header['schema']} of version {header['version']}, and this database"
            f" has {schema}. Import it with the version that has exported it, and upgrade then."
        )
    return header


def _require_empty() -> None:
    for model in _OF_USERS:
        if model.select().exists():
            raise NotEmpty(
                "The database is not empty. Import into a new one, after `flask --app wsgi migrate`."
            )


def _write(contents: Iterator[dict[str, Any]], tell: Tell) -> dict[str, Any]:
    """Write the rows as they come. Return what the last line says."""
    moved, end = 0, dict[str, Any]()
    for table, lines in groupby(contents, key=lambda content: content.get("table", END)):
        if table == END:
            end = next(lines)[END]
            continue
        for number in _write_table(_BY_NAME[table], lines):
            moved += number
            tell(table, moved)
    return end


def _write_table(model: type[Model], lines: Iterator[dict[str, Any]]) -> Iterator[int]:
    """Write rows of a table, and yield how many each portion had."""
    rows = map(from_json(model), map(itemgetter("row"), lines))
    for first in rows:
        yield write_rows(model, chain([first], islice(rows, _ROWS_AT_ONCE - 1)))
