"""The values of columns as JSON, the same from either database: times as text, bytes as base64."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from peewee import Model


def to_json(model: type[Model]) -> Callable[[Sequence[Any]], dict[str, Any]]:
    """Return what makes the JSON of a row, without the columns that are null."""
    columns = [(field.column_name, _TO_JSON.get(field.field_type)) for field in _fields(model)]

    def convert(row: Sequence[Any]) -> dict[str, Any]:
        return {
            name: value if make is None else make(value)
            for (name, make), value in zip(columns, row, strict=True)
            if value is not None
        }

    return convert


def from_json(model: type[Model]) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Return what makes a row's values, as the driver takes them, in the order of the model's columns."""
    columns = [(field.column_name, _FROM_JSON.get(field.field_type)) for field in _fields(model)]

    def convert(row: Mapping[str, Any]) -> list[Any]:
        values = ((make, row.get(name)) for name, make in columns)
        return [value if make is None or value is None else make(value) for make, value in values]

    return convert


def _fields(model: type[Model]) -> Iterator[Any]:
    yield from model._meta.sorted_fields


def _text_of_time(value: datetime | str) -> str:
    """Return a time as SQLite keeps it: it leaves out a fraction of zero."""
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    return time.isoformat(" ")


def _text_of_bytes(value: bytes | str) -> str:
    # A default of a column of SQLite may be text.
    return b64encode(value.encode() if isinstance(value, str) else value).decode()


_TO_JSON: dict[str, Callable[[Any], Any]] = {
    "DATETIME": _text_of_time,
    "BLOB": _text_of_bytes,
    "BOOL": bool,
}
_FROM_JSON: dict[str, Callable[[Any], Any]] = {"BLOB": b64decode}
