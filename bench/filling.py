"""Fills ledgers with many tasks, as they would have come to be.

One task of each kind goes through Backstop's own code. The others are copies of its rows under other ids,
written in bulk; the schema's indexes and triggers see each of them.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import Model

from bench.ledgers import execute, insert_rows, is_sqlite
from bench.processes import environment
from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.db import init_database
from receiver.ledger.engine.schema import migrate
from receiver.ledger.evidence import Discovered
from receiver.ledger.models import Delivery, Lookup, Task, database
from receiver.ledger.registration import Registration
from receiver.ledger.timetable import Timetable
from receiver.upstream import services
from receiver.upstream.results import read_item

SPAN = timedelta(days=100)  # between the oldest task and the newest
_TIMETABLE = Timetable(timedelta(minutes=3))
_DUE_SINCE = timedelta(hours=1)
_ALL_COUNTED = "UPDATE reader SET event = (SELECT COALESCE(MAX(id), 0) FROM event) WHERE name = 'counters'"
_TASK_ID = "00000000-feed-4bee-8bad-{:012d}"  # as callbacks.lua makes them


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
    """A tenth of the tasks are due; callbacks have settled most of the others."""
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


@dataclass(frozen=True)
class BackstopContents:
    """So many tasks for Backstop's ledger, of kinds that `kind_of` tells by their numbers.

    The kinds are `pending`, `due`, and `failed`, `succeeded`, `recovered`, which are settled.
    """

    tasks: int
    kind_of: Callable[[int], str]
    deliveries: bool = False  # for the tasks that a callback has settled

    def fill(self, url: str) -> None:
        """Make the schema in an empty database and fill it."""
        init_database(url)
        migrate()
        prototypes = _Prototypes(is_sqlite(url), self.tasks)
        database.obj.close_all()
        tasks = (prototypes.task(self.kind_of(number), number) for number in range(self.tasks))
        insert_rows(url, "task", prototypes.task_columns, tasks)
        if self.deliveries:
            settled = (one for one in range(self.tasks) if self.kind_of(one) in {"failed", "succeeded"})
            insert_rows(url, "delivery", prototypes.delivery_columns, map(prototypes.delivery, settled))
        execute(url, _ALL_COUNTED)


@dataclass(frozen=True)
class TextbookContents:
    """So many tasks for the textbook's ledger, which is one of SQLite."""

    tasks: int

    def fill(self, url: str) -> None:
        """Let the textbook make its tables in an empty database, and add the tasks."""
        make_tables = [sys.executable, "-c", "from bench.contenders import textbook; textbook()"]
        subprocess.run(make_tables, env=environment(url), check=True)
        insert_rows(url, "task", ("id", "status", "response", "created_at"), self._rows())

    def _rows(self) -> Iterator[tuple[str, str, str | None, str]]:
        for number in range(self.tasks):
            status, identifier = under_load(number), task_id(number)
            settled = json.dumps(response(identifier)) if status == "succeeded" else None
            yield identifier, status, settled, "2026-01-01 00:00:00.000000"


class _Prototypes:
    """A row of each kind, as Backstop writes it into the database to which this process is bound."""

    def __init__(self, times_are_texts: bool, tasks: int) -> None:
        self._now = utcnow()
        self._times_are_texts = times_are_texts
        self._tasks = tasks
        self._write()
        self.task_columns, rows = _read(Task)
        self._rows = {row["id"]: row for row in rows}
        columns, (self._delivery, *_) = _read(Delivery)
        self.delivery_columns = columns[1:]  # without the id, which the database gives
        for model in (Delivery, Lookup, Task):
            model.delete().execute()

    def task(self, kind: str, number: int) -> list[Any]:
        """Return the row of a task."""
        heard_of = self._moment(SPAN, number)
        row = self._rows[kind] | {"id": task_id(number), "created_at": heard_of, "silent_since": heard_of}
        if row["settled_at"] is not None:
            row["settled_at"] = heard_of
        if kind == "due":
            row["next_lookup_at"] = self._moment(_DUE_SINCE, number)
        return list(row.values())

    def delivery(self, number: int) -> list[Any]:
        """Return the row of a task's delivery."""
        ours = {
            "uid": f"{number:032x}",
            "task_id": task_id(number),
            "received_at": self._moment(SPAN, number),
        }
        row = self._delivery | ours
        return [row[column] for column in self.delivery_columns]

    def _write(self) -> None:
        for kind in ("pending", "due"):
            store.register([Registration(kind, type="imagine")], self._now, timetable=_TIMETABLE)
        for kind in ("failed", "succeeded"):
            body = json.dumps(response(kind, success=kind == "succeeded")).encode()
            callback = store.Callback(body=body, size=len(body), remote_addr="192.0.2.1")
            store.record(callback, self._now, timetable=_TIMETABLE, confirm=False)
        store.adopt(
            [Discovered(read_item(item("recovered")), services.DEFAULT.name)],
            self._now,
            timetable=_TIMETABLE,
        )

    def _moment(self, span: timedelta, number: int) -> datetime | str:
        """Return when it was this task's turn, with all tasks spread over a span until now."""
        moment = self._now - span * (1 - number / self._tasks)
        return str(moment) if self._times_are_texts else moment


def _read(model: type[Model]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return a table's columns and its rows, as the database's driver reads and takes them."""
    with database.connection_context():
        cursor = database.execute(model.select())
        columns = [column[0] for column in cursor.description]
        return columns, [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
