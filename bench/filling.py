"""Fills ledgers with many tasks, as they would have come to be.

One task of each kind goes through the real door; the others are copies of its rows under other ids, written
in bulk. What the schema does by itself, its indexes and triggers, it does for every row.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import Model

from bench.bulk import insert_rows, is_sqlite
from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.evidence import Discovered, Registration
from receiver.ledger.models import Delivery, Lookup, Task, database
from receiver.upstream.results import read_item

# Tasks are heard of one after the other, over so long a time.
SPAN = timedelta(days=100)
_GRACE = timedelta(minutes=3)
_DUE_SINCE = timedelta(hours=1)
# As callbacks.lua makes them.
_TASK_ID = "00000000-feed-4bee-8bad-{:012d}"

KindOf = Callable[[int], str]


@dataclass(frozen=True)
class Contents:
    """What to fill a ledger with: so many tasks, of kinds that `kind_of` tells by their numbers.

    The kinds are `pending`, `due`, and `failed`, `succeeded`, `recovered`, which are settled.
    """

    tasks: int
    kind_of: KindOf
    deliveries: bool = False  # of what a callback has settled


def task_id(number: int) -> str:
    """Return the id of a task by its number."""
    return _TASK_ID.format(number)


def under_load(number: int) -> str:
    """A fifth of the tasks are settled already."""
    return "succeeded" if number % 5 == 0 else "pending"


def all_due(number: int) -> str:
    """Every task is due."""
    return "due"


def in_use(number: int) -> str:
    """A tenth of the tasks are due; of the others most were settled by a callback."""
    return {0: "due", 1: "failed", 2: "recovered"}.get(number % 10, "succeeded")


def response(identifier: str, *, success: bool = True) -> dict[str, Any]:
    """Return what upstream says of a finished task."""
    if not success:
        return {"success": False, "task_id": identifier, "error": {"code": "bad_request", "message": "no"}}
    url = f"https://platform.cdn.acedata.cloud/midjourney/{'c' * 64}.png"
    picture = {"image_url": url, "image_width": 2048, "image_height": 2048, "raw_image_url": url}
    return {"success": True, "task_id": identifier, **picture, "progress": 100, "actions": ["upscale1"]}


def item(identifier: str) -> dict[str, Any]:
    """Return the Tasks API's object of a finished task."""
    request = {"prompt": "a lighthouse at dusk", "callback_url": "https://backstop.example.com/callbacks/x"}
    times = {"created_at": 1_753_000_000.0, "finished_at": 1_753_000_060.0}
    task = {"id": identifier, "type": "imagine", "request": request, **times}
    return task | {"response": response(identifier)}


def fill(url: str, contents: Contents) -> None:
    """Make the schema in an empty database and fill it."""
    init_database(url)
    migrate()
    prototypes = _Prototypes(is_sqlite(url))
    database.obj.close_all()
    numbers = range(contents.tasks)
    kinds = ((number, contents.kind_of(number)) for number in numbers)
    tasks = (prototypes.task(kind, number, contents.tasks) for number, kind in kinds)
    insert_rows(url, "task", prototypes.task_columns, tasks)
    if contents.deliveries:
        insert_rows(url, "delivery", prototypes.delivery_columns, _deliveries(prototypes, contents))


def _deliveries(prototypes: "_Prototypes", contents: Contents) -> Iterator[list[Any]]:
    for number in range(contents.tasks):
        if contents.kind_of(number) in {"failed", "succeeded"}:
            yield prototypes.delivery(number, contents.tasks)


class _Prototypes:
    """A row of each kind, as the real door writes it into the ledger to which this process is bound."""

    def __init__(self, times_are_texts: bool) -> None:
        self._now = utcnow()
        self._as_time = str if times_are_texts else _itself
        for kind in ("pending", "due"):
            store.register([Registration(kind, type="imagine")], self._now, grace=_GRACE)
        for kind in ("failed", "succeeded"):
            body = json.dumps(response(kind, success=kind == "succeeded")).encode()
            callback = store.Callback(body=body, size=len(body), remote_addr="192.0.2.1")
            store.record(callback, self._now, grace=_GRACE, confirm=False)
        store.adopt([Discovered(read_item(item("recovered")))], self._now, grace=_GRACE)
        self.task_columns, tasks = _read(Task)
        self._tasks = {row["id"]: row for row in tasks}
        columns, (self._delivery, *_) = _read(Delivery)
        self.delivery_columns = columns[1:]  # but for the id, which the database gives
        for model in (Delivery, Lookup, Task):
            model.delete().execute()

    def task(self, kind: str, number: int, tasks: int) -> list[Any]:
        """Return the row of a task."""
        heard_of = self._as_time(self._now - SPAN * (1 - number / tasks))
        row = self._tasks[kind] | {"id": task_id(number), "created_at": heard_of, "silent_since": heard_of}
        if row["settled_at"] is not None:
            row["settled_at"] = heard_of
        if kind == "due":
            row["next_lookup_at"] = self._as_time(self._now - _DUE_SINCE * (1 - number / tasks))
        return list(row.values())

    def delivery(self, number: int, tasks: int) -> list[Any]:
        """Return the row of a task's delivery."""
        received_at = self._as_time(self._now - SPAN * (1 - number / tasks))
        ours = {"uid": f"{number:032x}", "task_id": task_id(number), "received_at": received_at}
        row = self._delivery | ours
        return [row[column] for column in self.delivery_columns]


def _read(model: type[Model]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return a table's columns and its rows, as the database's driver reads and takes them."""
    with database.connection_context():
        cursor = database.execute(model.select())
        columns = [column[0] for column in cursor.description]
        return columns, [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def _itself(moment: datetime) -> datetime:
    return moment
