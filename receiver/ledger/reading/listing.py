"""Lists tasks, newest first, with keyset pagination: a page costs a few ms however many there are.

A page is limited in bytes as well as in rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Any

from peewee import SQL, Select

from receiver.ledger.models import ACKNOWLEDGED, DISPUTED, MISSED, UNACKNOWLEDGED, Task, database
from receiver.ledger.reading.portions import briefly, load_first

Cursor = tuple[datetime, str]  # a task's place in a list: its created_at and its id

# How many tasks one page reads at most when no index serves the filter.
MOST_LOOKED_AT = 1000
_MOST_WORDS = 10
_NO_LIMIT = 2**31 - 1
_NEWEST = (Task.created_at.desc(), Task.id.desc())
_LOOKED_AT = (
    *(Task.created_at, Task.id, Task.service, Task.status, Task.type, Task.settled_by, Task.prompt),
    *(Task.callback_status, Task.lookup_status, Task.doubted_at, Task.acknowledged_at, Task.api_key),
)


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list. None means any value. Times are the times when we first heard of a task.

    `text` is a task's id, ref or trace id. If no task has that, its words are looked for in the prompts.
    """

    service: str | None = None
    status: str | None = None
    type: str | None = None
    settled_by: str | None = None
    disputed: bool | None = None
    missed: bool | None = None  # its final callback never came, and a look-up found the result
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None
    api_key: str | None = None  # the name of the key that it was submitted or registered with
    acknowledged: bool | None = None  # disputes only: whether a person has acknowledged the dispute


@dataclass(frozen=True, slots=True)
class Found:
    """A page of tasks, newest first. `next` is where the next page begins; None at the end.

    `looked_back_to` is set when no index serves the filter and the read stopped at MOST_LOOKED_AT: it is the
    moment that the read reached. Such a page may be short, and the search continues at `next`. A page of
    large tasks is short too; see `portions`.
    """

    tasks: list[Task]
    next: Cursor | None = None
    looked_back_to: datetime | None = None


def list_tasks(wanted: TaskFilter, limit: int, before: Cursor | None = None) -> Found:
    """Return up to `limit` tasks, newest first, that come after the place `before` in the list."""
    with database.connection_context():
        listed, ended = _listed(wanted, limit, before, (Task.id,))
        tasks = load_first([task.id for task in listed[:limit]])
    return _found(tasks, len(listed), ended)


def list_briefly(wanted: TaskFilter, limit: int, before: Cursor | None = None) -> Found:
    """Return the same page for a table: without large columns, so that size never shortens it."""
    with database.connection_context():
        listed, ended = _listed(wanted, limit, before, briefly())
    return _found(listed[:limit], len(listed), ended)


def find_ids(wanted: TaskFilter, limit: int) -> tuple[list[str], bool]:
    """Return the ids of up to `limit` tasks that match a filter, and whether there are more."""
    with database.connection_context():
        looks = [_look(*start, wanted, limit + 1, None) for start in _starts(wanted)]
    found = list(dict.fromkeys(task_id for ids, _ in looks for task_id in ids))
    return found[:limit], len(found) > limit


def _found(tasks: list[Task], listed: int, ended: Cursor | None) -> Found:
    if listed > len(tasks):
        return Found(tasks, (tasks[-1].created_at, tasks[-1].id))
    return Found(tasks, ended, ended and ended[0])


def _listed(
    wanted: TaskFilter, limit: int, before: Cursor | None, columns: Iterable[Any]
) -> tuple[list[Task], Cursor | None]:
    """Return up to `limit` + 1 tasks with these columns, and where the read stopped early, if it did."""
    if wanted.disputed and wanted.acknowledged is not None:
        wanted = replace(wanted, disputed=None)  # only disputes can be acknowledged
    looks = [_look(*start, wanted, limit + 1, before) for start in _starts(wanted)]
    ended = max((end for _, end in looks if end), default=None)  # where the first of them stopped
    listed = Task.select(*columns).where(Task.id.in_({one for ids, _ in looks for one in ids}))
    if ended:
        listed = listed.where(~_behind(ended))
    # The database sorts: its collation may order ids differently than Python does.
    return list(listed.order_by(*_NEWEST).limit(limit + 1)), ended


def _starts(wanted: TaskFilter) -> list[tuple[str, Any]]:
    """Return the conditions to start from, each with the filter's field that it covers.

    An index serves each of them in the list's order. A task that meets any of them belongs to the list.
    """
    if wanted.text is not None:
        named = [column == wanted.text for column in (Task.id, Task.ref, Task.trace_id)]
        if any(Task.select().where(by).exists() for by in named):
            return [("text", by) for by in named]
    if wanted.acknowledged is False:
        return [("acknowledged", UNACKNOWLEDGED)]
    if wanted.acknowledged:
        return [("", DISPUTED)]  # few tasks are disputed: do not read all the others for one page
    if wanted.disputed:
        return [("disputed", DISPUTED)]
    if wanted.missed:
        return [("missed", MISSED)]
    if wanted.api_key is not None:
        return [("api_key", Task.api_key == wanted.api_key)]
    if wanted.status is not None:
        return [("status", Task.status == wanted.status)]
    return [("", None)]


def _look(
    field: str, by: Any, wanted: TaskFilter, limit: int, before: Cursor | None
) -> tuple[list[str], Cursor | None]:
    """Return the newest ids that match a start and the filter, and where the read stopped early, if so."""
    started = _newest(by, wanted, before)
    if not _conditions(wanted, Task).keys() - {field}:
        return [task_id for _, task_id in started.limit(limit).tuples()], None
    # First find the last place to read, then read down to it. Tasks that arrive between the two statements
    # are read in addition and displace none.
    last = started.offset(MOST_LOOKED_AT - 1).limit(1).tuples().first()
    # The limit is never reached. It keeps the database from merging this subquery into the outer query.
    looked_at = _down_to(started, last).select(*_LOOKED_AT).limit(_NO_LIMIT).alias("looked_at")
    conditions = _conditions(wanted, looked_at.c)
    conditions.pop(field, None)
    found = (
        Select([looked_at], [looked_at.c.id])
        .where(*conditions.values())
        .order_by(looked_at.c.created_at.desc(), looked_at.c.id.desc())
        .limit(limit)
    )
    return [row["id"] for row in found.execute(database)], last


def _newest(by: Any, wanted: TaskFilter, before: Cursor | None) -> Any:
    query = Task.select(Task.created_at, Task.id).order_by(*_NEWEST)
    if by is not None:
        query = query.where(by)
    if wanted.since is not None:
        query = query.where(Task.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Task.created_at < wanted.until)
    return query if before is None else query.where(_behind(before))


def _behind(place: Cursor) -> Any:
    created_at, task_id = place
    # The first condition is for the index; the second is exact.
    return (Task.created_at <= created_at) & ((Task.created_at < created_at) | (Task.id < task_id))


def _down_to(started: Any, last: Cursor | None) -> Any:
    if last is None:
        return started
    # The first condition is for the index: without it SQLite would read all older tasks.
    return started.where(Task.created_at >= last[0], ~_behind(last))


def _conditions(wanted: TaskFilter, task: Any) -> dict[str, Any]:
    """Return a filter's conditions except those on time, by field."""
    conditions = {
        name: getattr(task, name) == value
        for name in ("service", "status", "type", "settled_by", "api_key")
        if (value := getattr(wanted, name)) is not None
    }
    for name, condition in (("disputed", DISPUTED), ("missed", MISSED)):
        if (value := getattr(wanted, name)) is not None:
            conditions[name] = condition if value else SQL(f"NOT COALESCE({condition.sql}, FALSE)")
    if wanted.acknowledged is not None:
        conditions["acknowledged"] = ACKNOWLEDGED if wanted.acknowledged else UNACKNOWLEDGED
    if wanted.text is not None:
        words = wanted.text.split()[:_MOST_WORDS]
        conditions["text"] = reduce(and_, (task.prompt.contains(word) for word in words), SQL("1 = 1"))
    return conditions
