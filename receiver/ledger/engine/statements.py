"""Statements that the query builder builds once and the database executes often.

Building the upsert of a callback takes peewee a hundred times as long as the database takes to execute it.
Only the values in its rows change from one execution to the next.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peewee import Value

from receiver.ledger.engine.db import execute_built, number_placeholders
from receiver.ledger.engine.proxy import database

Row = Mapping[str, Any]  # columns and their values, as the database's driver takes them

# How many rows one statement writes. Each number of rows needs a text of its own, which peewee must build and
# PostgreSQL must prepare. Powers of two keep that to seven texts, and a batch of up to 64 rows takes at most
# six statements. A batch is split and not padded, as a padding row would be written too.
_SIZES = (64, 32, 16, 8, 4, 2, 1)


class Statement:
    """A statement that writes rows. `build` builds it for the given rows, in their order.

    It writes many rows at once. On PostgreSQL each statement costs a round trip. On SQLite it costs the
    interpreter's lock: SQLite releases it, and busy threads may delay taking it again.
    """

    def __init__(self, build: Callable[[Sequence[Row]], Any]) -> None:
        self._build = build
        self._built: dict[tuple[type, int], _Text] = {}

    def execute(self, rows: Sequence[Row]) -> None:
        """Write the rows in their order. Each call must bring the same columns."""
        written = 0
        for size in _SIZES:
            while len(rows) - written >= size:
                self._execute(rows[written : written + size])
                written += size

    def _execute(self, rows: Sequence[Row]) -> None:
        # The key holds the kind of database: the two have different SQL for the same query.
        key = (type(database.obj), len(rows))
        text = self._built.get(key)
        if text is None:
            text = self._built[key] = _Text(self._build, rows)
        execute_built(text.sql, text.fill(rows))


class _Text:
    """The text of a statement, with the row and the column of each parameter."""

    def __init__(self, build: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> None:
        self._columns = frozenset(rows[0])
        # No converter: peewee would convert the placeholder as if it were the value.
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
    """A placeholder in a query for one column's value of one row."""

    def __init__(self, row: int, column: str) -> None:
        self.row = row
        self.column = column
