"""Loads tasks in portions that fit into memory: a single task's JSON may take megabytes."""

from collections.abc import Iterator, Sequence
from typing import Any

from peewee import Case, chunked, fn

from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.models import Task, database
from receiver.upstream.results import SUCCEEDED

MOST_BYTES = 4 * 2**20
# The columns that may be large. All others have a bounded length.
_LARGE = (
    *(Task.callback_response, Task.callback_error, Task.lookup_response, Task.lookup_error),
    *(Task.request, Task.prompt, Task.lookup_envelope),
)
_NAMES_OF_LARGE = {column.name for column in _LARGE}
_SMALL = tuple(column for column in Task._meta.sorted_fields if column.name not in _NAMES_OF_LARGE)
# SQLite must read a value to tell its length. Measure only so many tasks at once, and stop when a portion is
# full.
_MEASURED_AT_ONCE = 50
_LOADED_AT_ONCE = 1000
_LONGEST_PROMPT = 1000  # characters; lists show fewer
_LARGEST_SHOWN = 32 * 2**10  # bytes; lists look for a picture's address in responses up to this size


def load_first(task_ids: Sequence[str]) -> list[Task]:
    """Return the first tasks that fit into MOST_BYTES, in the given order; at least one."""
    return [task for task in load_each(task_ids) if task is not None]


def load_each(task_ids: Sequence[str]) -> list[Task | None]:
    """Return the same with None for a task that is not there. A task counts each time that it is named."""
    with database.connection_context():
        first = task_ids[: _how_many_fit(task_ids)]
        found = _by_id(Task.select(), first)
    return [found.get(task_id) for task_id in first]


def load_briefly(task_ids: Sequence[str]) -> dict[str, Task]:
    """Return the tasks by id, with the columns of `briefly` only."""
    with database.connection_context():
        return _by_id(Task.select(*briefly()), task_ids)


def briefly() -> list[Any]:
    """Return the columns that a table's row needs.

    The prompt is cut. The only result is upstream's own, when it is small: the row shows its picture.
    """
    has_picture = (Task.lookup_status == SUCCEEDED) & (_size(Task.lookup_response) <= _LARGEST_SHOWN)
    response = Case(None, [(has_picture, Task.lookup_response)])
    prompt = fn.SUBSTR(Task.prompt, 1, _LONGEST_PROMPT)
    return [*_SMALL, response.alias(Task.lookup_response.name), prompt.alias(Task.prompt.name)]


def _how_many_fit(task_ids: Sequence[str]) -> int:
    left = MOST_BYTES
    for place, size in enumerate(_sizes(task_ids)):
        left -= size
        if left < 0 and place:
            return place
    return len(task_ids)


def _sizes(task_ids: Sequence[str]) -> Iterator[int]:
    """Yield the size of each task's large columns in bytes. They are measured lazily."""
    size = sum((fn.COALESCE(_size(column), 0) for column in _LARGE[1:]), fn.COALESCE(_size(_LARGE[0]), 0))
    for some in chunked(task_ids, _MEASURED_AT_ONCE):
        rows: list[Any] = list(Task.select(Task.id, size).where(Task.id.in_(some)).tuples())
        sizes = dict(rows)
        yield from (sizes.get(task_id, 0) for task_id in some)


def _size(column: Any) -> Any:
    # PostgreSQL knows the size without reading the value. SQLite before 3.43 has no OCTET_LENGTH.
    return fn.OCTET_LENGTH(column) if on_postgresql() else fn.LENGTH(column.cast("BLOB"))


def _by_id(query: Any, task_ids: Sequence[str]) -> dict[str, Task]:
    found: dict[str, Task] = {}
    for some in chunked(dict.fromkeys(task_ids), _LOADED_AT_ONCE):
        found |= {task.id: task for task in query.where(Task.id.in_(some))}
    return found
