"""Lists of tasks, newest first, by keyset: each page costs some ms however many tasks there are.

A page ends by bytes as well as by rows.
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

# How many tasks are looked at for one page where no index serves what is asked.
MOST_LOOKED_AT = 1000
_MOST_WORDS = 10
_NO_LIMIT = 2**31 - 1
_NEWEST = (Task.created_at.desc(), Task.id.desc())
_LOOKED_AT = (
    *(Task.created_at, Task.id, Task.service, Task.status, Task.type, Task.settled_by, Task.prompt),
    *(Task.callback_status, Task.lookup_status, Task.doubted_at, Task.acknowledged_at),
)


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks to list; None leaves a field out. Times are of when we first heard of a task.

    `text` is a task's id, ref or trace id; where no task has it, words that the prompt holds.
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
    acknowledged: bool | None = None  # disputed, and a person has acknowledged that, or nobody has


@dataclass(frozen=True, slots=True)
class Found:
    """A page of tasks, newest first; `next` is where the next page begins, None at the end.

    With `looked_back_to` there may be fewer than were asked for: no index serves what was asked, so only so
    many tasks were looked at, back to that moment. The search goes on at `next`. There are also fewer when
    they are large; see `portions`.
    """

    tasks: list[Task]
    next: Cursor | None = None
    looked_back_to: datetime | None = None


def list_tasks(wanted: TaskFilter, limit: int, before: Cursor | None = None) -> Found:
    """Return up to `limit` tasks, newest first, from behind the task whose (created_at, id) is `before`."""
    with database.connection_context():
        listed, ended = _listed(wanted, limit, before, (Task.id,))
        tasks = load_first([task.id for task in listed[:limit]])
    return _found(tasks, len(listed), ended)


def list_briefly(wanted: TaskFilter, limit: int, before: Cursor | None = None) -> Found:
    """Return the same for a table of tasks: never fewer because they are large, but without all that is."""
    with database.connection_context():
        listed, ended = _listed(wanted, limit, before, briefly())
    return _found(listed[:limit], len(listed), ended)


def find_ids(wanted: TaskFilter, limit: int) -> tuple[list[str], bool]:
    """Return the ids of up to `limit` tasks that a filter holds, and whether there are more."""
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
    """Return up to `limit` tasks and one more, with these columns, and where the look gave up, if it did."""
    if wanted.disputed and wanted.acknowledged is not None:
        wanted = replace(wanted, disputed=None)  # only disputes can be acknowledged
    looks = [_look(*start, wanted, limit + 1, before) for start in _starts(wanted)]
    ended = max((end for _, end in looks if end), default=None)  # the first at which one gave up
    listed = Task.select(*columns).where(Task.id.in_({one for ids, _ in looks for one in ids}))
    if ended:
        listed = listed.where(~_behind(ended))
    # The database orders, which may compare ids otherwise than Python does.
    return list(listed.order_by(*_NEWEST).limit(limit + 1)), ended


def _starts(wanted: TaskFilter) -> list[tuple[str, Any]]:
    """Return where to look: conditions that an index serves in the list's order.

    Each comes with the field of the filter that it is of; what any of them holds is wanted.
    """
    if wanted.text is not None:
        named = [column == wanted.text for column in (Task.id, Task.ref, Task.trace_id)]
        if any(Task.select().where(by).exists() for by in named):
            return [("text", by) for by in named]
    if wanted.acknowledged is False:
        return [("acknowledged", UNACKNOWLEDGED)]
    if wanted.acknowledged:
        return [("", DISPUTED)]  # few are: it must not look through all others for one page
    if wanted.disputed:
        return [("disputed", DISPUTED)]
    if wanted.missed:
        return [("missed", MISSED)]
    if wanted.status is not None:
        return [("status", Task.status == wanted.status)]
    return [("", None)]


def _look(
    field: str, by: Any, wanted: TaskFilter, limit: int, before: Cursor | None
) -> tuple[list[str], Cursor | None]:
    """Return the newest tasks that one start and the filter hold, and where the look gave up, if it did."""
    started = _newest(by, wanted, before)
    if not _conditions(wanted, Task).keys() - {field}:
        return [task_id for _, task_id in started.limit(limit).tuples()], None
    # Where the look ends is decided first, and it looks down to there: tasks that arrive between the two
    # statements are looked at besides, and push none out.
    last = started.offset(MOST_LOOKED_AT - 1).limit(1).tuples().first()
    # The limit, which is never reached, keeps databases from merging this query with the one around it.
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
    # The first part is for the index, the second says it exactly.
    return (Task.created_at <= created_at) & ((Task.created_at < created_at) | (Task.id < task_id))


def _down_to(started: Any, last: Cursor | None) -> Any:
    if last is None:
        return started
    # The first part is for the index: SQLite would read all that is older.
    return started.where(Task.created_at >= last[0], ~_behind(last))


def _conditions(wanted: TaskFilter, task: Any) -> dict[str, Any]:
    """Return what a filter asks of a task beyond its time, by the fields of the filter."""
    conditions = {
        name: getattr(task, name) == value
        for name in ("service", "status", "type", "settled_by")
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
