"""Statements that the query builder makes once, to be executed often.

To build the upsert of one callback takes peewee a hundred times as long as to execute it takes the database,
and all that changes from one execution to the next are the values in its rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peewee import Value

from receiver.ledger.engine.db import execute_built, number_placeholders
from receiver.ledger.engine.proxy import database

Row = Mapping[str, Any]  # columns and their values, as the database's driver takes them

# How many rows one statement writes. Each size is a text of its own, so there are few.
_SIZES = (64, 32, 16, 8, 4, 2, 1)


class Statement:
    """A statement that writes rows. `build` makes it for the rows that it is given, in their order.

    Many rows a statement: each costs a round trip on PostgreSQL, and on SQLite the interpreter's lock, which
    is given up meanwhile and has to be waited for where other threads are busy.
    """

    def __init__(self, build: Callable[[Sequence[Row]], Any]) -> None:
        self._build = build
        self._built: dict[tuple[type, int], _Text] = {}

    def execute(self, rows: Sequence[Row]) -> None:
        """Write the rows, each time ones of the same columns, in their order."""
        written = 0
        for size in _SIZES:
            while len(rows) - written >= size:
                self._execute(rows[written : written + size])
                written += size

    def _execute(self, rows: Sequence[Row]) -> None:
        # By the kind of the database: the same query reads otherwise on another.
        key = (type(database.obj), len(rows))
        text = self._built.get(key)
        if text is None:
            text = self._built[key] = _Text(self._build, rows)
        execute_built(text.sql, text.fill(rows))


class _Text:
    """The text of a statement, and which of its parameters is which value of which row."""

    def __init__(self, build: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> None:
        self._columns = frozenset(rows[0])
        # No converter: peewee would convert the place as if it were the value.
        slots = [
            {column: Value(_Place(at, column), converter=False, unpack=False) for column in self._columns}
            for at in range(len(rows))
        ]
        self._values: list[Any]
        sql, self._values = build(slots).sql()
        self.sql = number_placeholders(sql)
        self._places = [
            (number, value.row, value.column)
            for number, value in enumerate(self._values)
            if isinstance(value, _Place)
        ]

    def fill(self, rows: Sequence[Row]) -> list[Any]:
        for row in rows:
            if row.keys() != self._columns:
                raise ValueError(f"the statement was built for other columns than {', '.join(row)}")
        parameters = self._values.copy()
        for number, row_number, column in self._places:
            parameters[number] = rows[row_number][column]
        return parameters


class _Place:
    """Stands in a query where a column's value of one of the rows will be."""

    def __init__(self, row: int, column: str) -> None:
        self.row = row
        self.column = column
