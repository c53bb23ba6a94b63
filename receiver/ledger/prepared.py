"""Statements that the query builder makes once, to be executed often.

To build the upsert of one callback takes peewee a hundred times as long as to execute it takes the database,
and all that changes from one execution to the next are the values in its row.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from peewee import Value

from receiver.ledger.db import execute_many
from receiver.ledger.models import database

Row = Mapping[str, Any]  # columns and their values, as the database's driver takes them
Parameters = list[Any]


class Prepared:
    """A statement that writes one row. `build` makes it for the row that it is given.

    One row a statement: to be able to undo half of several, SQLite would first copy every page they touch.
    """

    def __init__(self, build: Callable[[Row], Any]) -> None:
        self._build = build
        self._built: dict[type, _Text] = {}

    def fill(self, row: Row) -> Parameters:
        """Return the parameters with which the statement writes `row`, each time one of the same columns."""
        # By the kind of the database: the same query reads otherwise on another.
        text = self._built.get(type(database.obj)) or self._make(row)
        if row.keys() != text.columns:
            raise ValueError(f"the statement was built for other columns than {', '.join(row)}")
        parameters = text.values.copy()
        for at, column in text.places:
            parameters[at] = row[column]
        return parameters

    def execute(self, rows: Sequence[Parameters]) -> None:
        """Write the rows that were filled in, in their order."""
        if rows:
            execute_many(self._built[type(database.obj)].sql, rows)

    def _make(self, row: Row) -> "_Text":
        # No converter: peewee would convert the name as if it were the value.
        slots = {column: Value(_Name(column), converter=False, unpack=False) for column in row}
        sql, values = self._build(slots).sql()
        places = [(at, value.column) for at, value in enumerate(values) if isinstance(value, _Name)]
        self._built[type(database.obj)] = _Text(sql, values, places, row.keys())
        return self._built[type(database.obj)]


class _Name:
    """Stands in a query where a column's value will be."""

    def __init__(self, column: str) -> None:
        self.column = column


class _Text:
    def __init__(
        self, sql: str, values: list[Any], places: list[tuple[int, str]], columns: Collection[str]
    ) -> None:
        self.sql = sql
        self.values = values
        self.places = places
        self.columns = set(columns)
