"""Statements and queries that the query builder builds once and the database executes often.

Building the upsert of a callback takes peewee a hundred times as long as the database takes to execute it.
Only the values in its rows change from one execution to the next.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

from peewee import Model, ModelObjectCursorWrapper, Value

from receiver.ledger.engine.db import execute_built, number_placeholders, on_postgresql
from receiver.ledger.engine.proxy import database

_T = TypeVar("_T")
Row = Mapping[str, Any]  # columns and their values, as the database's driver takes them

# How many rows one statement writes. Each number of rows needs a text of its own, which peewee must build and
# PostgreSQL must prepare. Powers of two keep that to seven texts, and a batch of up to 64 rows takes at most
# six statements. A batch is split and not padded, as a padding row would be written too.
_SIZES = (64, 32, 16, 8, 4, 2, 1)
_ROWS_AT_ONCE = 500  # SQLite takes 32,766 parameters in a statement


def parts(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield rows in parts of as many as one statement of any kind can take."""
    # peewee's `chunked` pads the last part to its full size first, which costs more than to write one row.
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[at : at + _ROWS_AT_ONCE]


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
        for some in _portions(rows):
            self._execute(some)

    def returning(self, rows: Sequence[Row]) -> list[Any]:
        """Write the rows likewise, and return what the statement returns, as the driver gives it."""
        return self.returning_later(rows)()

    def returning_later(self, rows: Sequence[Row]) -> Callable[[], list[Any]]:
        """Write the rows likewise. What it returns gives what the statement returned.

        Called after a pipelined transaction, it costs PostgreSQL no round trip.
        """
        cursors = [self._execute(some) for some in _portions(rows)]
        if on_postgresql():
            return lambda: [told for cursor in cursors for told in cursor.fetchall()]
        told = [told for cursor in cursors for told in cursor.fetchall()]  # SQLite commits nothing unread
        return lambda: told

    def _execute(self, rows: Sequence[Row]) -> Any:
        # The key holds the kind of database: the two have different SQL for the same query.
        key = (type(database.obj), len(rows))
        text = self._built.get(key)
        if text is None:
            text = self._built[key] = _Text(self._build, rows)
        return execute_built(text.numbered, text.fill(rows))


def _portions(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    written = 0
    for size in _SIZES:
        while len(rows) - written >= size:
            yield rows[written : written + size]
            written += size


class Query:
    """A query whose values come later. `build` takes placeholders by name; timedeltas may be added to them.

    For a list `build` takes a list of placeholders, for IN alone: values repeat until they are a power of
    two, so that few texts are built. The query is not prepared in PostgreSQL: a plan for any values
    would be a worse one.
    """

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build
        self._built: dict[tuple[Any, ...], _Text] = {}

    def objects(self, model: type[Model], **values: Any) -> list[Any]:
        """Execute it with these values, and return the model's objects."""
        # Not `model.raw`, which takes each value through the query builder again.
        return list(ModelObjectCursorWrapper(self._execute(values), model, [], model))

    def rows(self, **values: Any) -> list[Any]:
        """Execute it with these values, and return the rows as the driver gives them."""
        found: list[Any] = self._execute(values).fetchall()
        return found

    def scalar(self, **values: Any) -> Any:
        """Execute it with these values. Return the first row's first column, or None if there is no row."""
        row = next(iter(self.rows(**values)), None)
        return row[0] if row else None

    def execute(self, **values: Any) -> int:
        """Execute it with these values, and return how many rows it changed."""
        changed: int = database.rows_affected(self._execute(values))
        return changed

    def _execute(self, values: Row) -> Any:
        lists = [name for name, value in values.items() if isinstance(value, list)]
        if lists:
            values = dict(pair for value in values.items() for pair in _named(*value))
        text = self._text(values, lists)
        return database.execute_sql(text.sql, text.fill([values]))

    def _text(self, values: Row, lists: Sequence[str] = ()) -> "_Text":
        key = (type(database.obj), *values, *lists)  # the names tell how long the lists are
        text = self._built.get(key)
        if text is None:
            text = self._built[key] = _Text(lambda rows: self._build(**_joined(rows[0], lists)), [values])
        return text


def _named(column: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Give each value of a list a name of its own, and fill it up."""
    if not isinstance(value, list):
        yield column, value
    elif value:
        filled = 1 << (len(value) - 1).bit_length()
        yield from ((f"{column} {at}", value[at % len(value)]) for at in range(filled))


def _joined(slots: Row, lists: Iterable[str]) -> Row:
    """Join the placeholders of each list again."""
    joined: dict[str, Any] = {name: [] for name in lists}
    for name, slot in slots.items():
        column, is_of_list, _ = name.partition(" ")
        if is_of_list:
            joined[column].append(slot)
        else:
            joined[column] = slot
    return joined


def as_moment(value: Any) -> datetime | None:
    """Return a moment in a row of `Query.rows`. SQLite gives texts."""
    moment: datetime | None = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment


class _Text:
    """The text of a statement, with the row and the column of each parameter."""

    def __init__(self, build: Callable[[Sequence[Row]], Any], rows: Sequence[Row]) -> None:
        self._columns = frozenset(rows[0])
        slots = [{column: _Slot(_Place(at, column)) for column in self._columns} for at in range(len(rows))]
        self._values: list[Any]
        self.sql: str
        self.sql, self._values = build(slots).sql()
        self._places = [
            (number, value) for number, value in enumerate(self._values) if isinstance(value, _Place)
        ]

    @cached_property
    def numbered(self) -> str:
        return number_placeholders(self.sql)

    def fill(self, rows: Sequence[Row]) -> list[Any]:
        for row in rows:
            if row.keys() != self._columns:
                raise ValueError(f"the statement was built for other columns than {', '.join(row)}")
        parameters = self._values.copy()
        for number, place in self._places:
            value = rows[place.row][place.column]
            parameters[number] = value if place.plus is None else value + place.plus
        return parameters


class _Slot(Value):
    """A placeholder in a query."""

    def __init__(self, place: "_Place") -> None:
        # No converter: peewee would convert the placeholder as if it were the value.
        super().__init__(place, converter=False, unpack=False)

    def __add__(self, other: timedelta) -> "_Slot":  # type: ignore[override]
        return _Slot(replace(self.value, plus=(self.value.plus or timedelta(0)) + other))

    def __sub__(self, other: timedelta) -> "_Slot":  # type: ignore[override]
        return self + -other


@dataclass(frozen=True, slots=True)
class _Place:
    """The value of one row's column, with something added."""

    row: int
    column: str
    plus: timedelta | None = None
