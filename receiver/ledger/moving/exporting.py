"""Writes the whole ledger to a file, as it is at one moment, while others write to it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from peewee import Model

from receiver.clock import to_iso
from receiver.ledger.engine.bulk import is_numbered, last_number, read_rows, snapshot
from receiver.ledger.engine.schema import applied_migrations
from receiver.ledger.models import MODELS
from receiver.ledger.moving.columns import to_json
from receiver.ledger.moving.lines import Lines
from receiver.version import VERSION

_TELL_EVERY_ROWS = 1000
Tell = Callable[[str, int], None]  # is told a table and how many rows were moved so far, altogether


@dataclass(frozen=True, slots=True)
class Moved:
    """What a file holds: where it comes from, and the rows of each table."""

    version: str
    schema: str
    exported_at: str
    rows: dict[str, int]
    sha256: str


def export_ledger(file: BinaryIO, now: datetime, tell: Tell) -> Moved:
    """Write all rows to a file. Callers sync it. The schema must be up to date."""
    lines, rows = Lines(file), Counter[str]()
    schema = applied_migrations()[-1]
    with snapshot():
        header = {"version": VERSION, "schema": schema, "exported_at": str(to_iso(now))}
        numbers = {_name(model): last_number(model) for model in MODELS if is_numbered(model)}
        lines.write({"backstop": {**header, "last_numbers": numbers}})
        for model in MODELS:
            _export(model, lines, rows, tell)
        sha256 = lines.end(rows)
    return Moved(**header, rows=dict(rows), sha256=sha256)


def _export(model: type[Model], lines: Lines, rows: Counter[str], tell: Tell) -> None:
    name, convert = _name(model), to_json(model)
    for row in read_rows(model):
        lines.write({"table": name, "row": convert(row)})
        rows[name] += 1
        if rows[name] % _TELL_EVERY_ROWS == 0:
            tell(name, rows.total())


def _name(model: type[Model]) -> str:
    return str(model._meta.table_name)
