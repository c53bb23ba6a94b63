"""Reads tasks for those who ask us instead of upstream: with all that an item of the Tasks API says."""

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from receiver.ledger.engine.db import execute_built, on_postgresql
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import Task, database
from receiver.ledger.reading.together import Together
from receiver.upstream.results import FINAL

# What an item says, and whether it is upstream's last word.
_OF_ITEM = (
    *(Task.id, Task.status, Task.type, Task.trace_id, Task.request, Task.callback_url),
    *(Task.submitted_at, Task.finished_at, Task.created_at, Task.looked_at, Task.leased_until),
    *(Task.service_source, Task.registered_at, Task.refused_at),
    *(Task.callback_key, Task.callback_status, Task.callback_response),
    *(Task.lookup_key, Task.lookup_status, Task.lookup_response, Task.lookup_envelope),
)
By = Literal["id", "trace_id"]


class Settled(NamedTuple):
    """A task with upstream's final answer, as the ledger keeps it."""

    id: str
    service: str
    status: str
    response: str | None
    request: str | None
    envelope: str
    callback_url: str | None


def find_items(service: str, by: By, names: Collection[str]) -> dict[str, Task]:
    """Return the tasks of a service by their id or trace id, those that we have heard of.

    Of several tasks with one trace id the one that was heard of last counts.
    """
    column = getattr(Task, by)
    with database.connection_context():
        if len(names) == 1:
            (name,) = names
            found = _find_one[by].objects(Task, service=service, name=name)
        else:
            several = Task.select(*_OF_ITEM).where(Task.service == service, column.in_(names))
            found = list(several.order_by(Task.created_at, Task.id))
    return {getattr(task, by): task for task in found}


def find_settled(task_id: str) -> Settled | None:
    """Return a task to which upstream has given its final answer, and whose item was kept; None for others.

    This is the fast way to what clients ask for most often: those who ask at once share one query.
    """
    return _settled.find(task_id)


def should_ask(task: Task, now: datetime, fresh_for: timedelta, confirm: bool) -> bool:
    """Tell whether upstream may know more about a task than we do.

    Not if it has given its final answer, refused the id, was asked within `fresh_for`, or is being asked.
    Without `confirm` a callback's final result counts as upstream's. A task whose service is only assumed is
    the reconciler's to search for.
    """
    if task.lookup_status in FINAL or task.refused_at is not None or task.service_is_assumed:
        return False
    if not confirm and task.callback_status in FINAL:
        return False
    is_being_asked = task.leased_until is not None and task.leased_until > now
    return not is_being_asked and (task.looked_at or task.created_at) <= now - fresh_for


def _build_find_one(by: By) -> Query:
    column = getattr(Task, by)
    return Query(
        lambda service, name: (
            Task.select(*_OF_ITEM)
            .where(Task.service == service, column == name)
            .order_by(Task.created_at.desc(), Task.id.desc())
            .limit(1)
        )
    )


_find_one: dict[By, Query] = {by: _build_find_one(by) for by in ("id", "trace_id")}


def _find_settled(task_ids: Collection[str]) -> dict[str, Settled]:
    # Written by hand: what the query builder adds takes longer than all the rest of such a request.
    named = "= ANY($1)" if on_postgresql() else "IN (SELECT value FROM json_each(?))"
    columns = "id, service, lookup_status, lookup_response, request, lookup_envelope, callback_url"
    query = (
        f"SELECT {columns} FROM task"  # noqa: S608 - two texts, both of them ours
        " WHERE lookup_status IN ('failed', 'succeeded') AND lookup_envelope IS NOT NULL AND id " + named
    )
    ids = list(task_ids)
    with database.connection_context():
        rows = execute_built(query, (ids if on_postgresql() else json.dumps(ids),)).fetchall()
    return {row[0]: Settled(*row) for row in rows}


_settled = Together(_find_settled)
