"""Deals events to endpoints: each makes a forward for each endpoint that is told of it.

Any number of processes may deal. One reader's place in the outbox moves by compare-and-set, in the
transaction that writes the forwards. So each event is dealt once.

See "The life of an event" in docs/design.md.
"""

import logging
import zlib
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from peewee import fn

from receiver.ledger import endpoints
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query, Statement
from receiver.ledger.event_json import event_json
from receiver.ledger.forward import GIVEN_UP, WAITING
from receiver.ledger.models import Endpoint, Event, Forward, Task, database
from receiver.ledger.outbox import events_after
from receiver.ledger.readers import go_on, lock_place, place_of
from receiver.ledger.task import REPEATED
from receiver.ledger.telling import When, body_for_app, body_in_upstreams_form, told_as
from receiver.upstream.results import dump

log = logging.getLogger(__name__)

READER = "forwards"
_AT_ONCE = 64
_RESULTS = ("task.succeeded", "task.failed")
_LEVEL = 1  # of zlib: the bodies are small
_NO_BODY = "its body cannot be made"


def deal(now: datetime, when: When) -> int:
    """Deal the next events, and return how many of them were read."""
    after = place_of(READER)
    events = events_after(after, _AT_ONCE)
    if not events:
        return 0
    with database.connection_context():
        apps = endpoints.apps()
        tasks = _tasks_of(events, with_all=bool(apps))
    with writing():
        if go_on(READER, after, events[-1].id):
            told = (event for event in events if event.task_id in tasks)
            _insert_forwards.execute(
                [row for event in told for row in _rows(event, tasks[event.task_id], apps, when, now)]
            )
    return len(events)


def deal_to_late_urls(task_ids: Collection[str], now: datetime, when: When) -> None:
    """Deal the results of tasks whose callback URL became known after the result.

    In the transaction that makes the URLs known. The events of later results will find them.
    """
    bodies = (
        (task, body_in_upstreams_form(task, when)) for task in Task.select().where(Task.id.in_(task_ids))
    )
    late = [(task, body) for task, body in bodies if body is not None]
    if late:
        # One dealer at a time: two that make the same endpoints or forwards in another order could deadlock.
        lock_place(READER)
    for task, body in late:
        _insert_forwards.execute([_to_callback_url(task, _said_of(task, now), body, now)])


def _said_of(task: Task, now: datetime) -> dict[str, Any]:
    """Return what the last event of a task with a result says."""
    several = Event.select(fn.MAX(Event.sequence)).where(Event.task_id == task.id, REPEATED).scalar()
    return {
        "event": None,
        "task_id": task.id,
        "sequence": several or 1,
        "type": f"task.{task.status}",
        "happened_at": task.settled_at or now,
    }


def _tasks_of(events: Sequence[Event], with_all: bool) -> Mapping[str, Task]:
    """Return the events' tasks. Without an app only those with a callback URL of their own are needed."""
    ids = sorted({event.task_id for event in events})
    return {task.id: task for task in (_tasks if with_all else _tasks_with_url).objects(Task, ids=ids)}


_tasks = Query(lambda ids: Task.select().where(Task.id.in_(ids)))
_tasks_with_url = Query(lambda ids: Task.select().where(Task.id.in_(ids), Task.callback_url.is_null(False)))


def _rows(
    event: Event, task: Task, apps: Sequence[Endpoint], when: When, now: datetime
) -> list[dict[str, Any]]:
    type_ = told_as(event, when)
    if type_ is None:
        return []
    said, goes_to_url = _said_by(event, type_), bool(task.callback_url) and type_ in _RESULTS
    try:
        to_app = body_for_app(event, task, when) if apps else b""
        to_url = body_in_upstreams_form(task, when) if goes_to_url else None
    except Exception:
        # One event must not keep all later ones from being told. It becomes a dead letter, which people see.
        log.exception("The body of event %d of task %s cannot be made.", event.id, event.task_id)
        to_app = dump(event_json(event, None)).encode()
        to_url = to_app if goes_to_url else None
        said |= {"status": GIVEN_UP, "next_attempt_at": None, "ended_at": now, "cause": _NO_BODY}
    rows = [_row(said, app, None, to_app, now) for app in apps]
    if to_url is not None:
        rows.append(_to_callback_url(task, said, to_url, now))
    return rows


def _said_by(event: Event, type_: str) -> dict[str, Any]:
    return {
        "event": event.id,
        "task_id": event.task_id,
        "sequence": event.sequence,
        "type": type_,
        "happened_at": event.happened_at,
    }


def _to_callback_url(task: Task, said: Mapping[str, Any], body: bytes, now: datetime) -> dict[str, Any]:
    return _row(said, endpoints.server_of(str(task.callback_url), now), task.callback_url, body, now)


def _row(
    said: Mapping[str, Any], endpoint: Endpoint, url: str | None, body: bytes, now: datetime
) -> dict[str, Any]:
    due = {"status": WAITING, "next_attempt_at": now, "ended_at": None, "cause": None}
    made = {"endpoint": endpoint.id, "url": url, "body": zlib.compress(body, _LEVEL), "created_at": now}
    return {**due, **made, **said}


_insert_forwards = Statement(lambda rows: Forward.insert_many(rows).on_conflict_ignore())
