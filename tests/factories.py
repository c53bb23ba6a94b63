"""Factories for tests: payloads as upstream sends them, and rows written by the real store functions."""

import itertools
import json
import threading
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from receiver.clock import utcnow
from receiver.ledger import endpoints, pruning, runs, store
from receiver.ledger.admission import UnknownBudget
from receiver.ledger.evidence import (
    ABSENT,
    Answer,
)
from receiver.ledger.models import Endpoint, Forward, Task
from receiver.ledger.old import Old
from receiver.ledger.patience import ENOUGH_LATE_ANSWERS, WAIT_AFTER_LATE_ANSWER, Patience
from receiver.ledger.reading import queries
from receiver.ledger.registration import Registration
from receiver.ledger.timetable import Timetable
from receiver.upstream.results import read_item

SAMPLES = Path(__file__).parent / "samples"
GRACE = timedelta(minutes=3)
TIMETABLE = Timetable(GRACE)
DAY = timedelta(days=1)


def sample(name: str) -> Any:
    """Return the sample payload of that name, parsed."""
    return json.loads((SAMPLES / name).read_bytes())


def sample_lines(name: str) -> list[bytes]:
    """Return the payloads of a sample file that has one on each line."""
    return (SAMPLES / name).read_bytes().splitlines()


def body(task_id: str = "t1", **fields: Any) -> bytes:
    """Return a successful callback's body."""
    return json.dumps({"task_id": task_id, "success": True, "image_url": "https://x/1.png"} | fields).encode()


def progress_body(task_id: str = "t1", progress: float = 40, **fields: Any) -> bytes:
    return body(task_id, progress=progress, actions=[], **fields)


def failure_body(task_id: str = "t1", code: str = "bad_request", message: str = "no") -> bytes:
    error = {"code": code, "message": message}
    return json.dumps({"task_id": task_id, "success": False, "error": error}).encode()


def item(task_id: str = "t1", response: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a task object of the Tasks API; without a response the task is still running."""
    return {"id": task_id, "type": "imagine", "response": response} | fields


def finished_item(task_id: str = "t1", **fields: Any) -> dict[str, Any]:
    response = {"task_id": task_id, "success": True, "image_url": "https://x/1.png", "progress": 100}
    return item(task_id, response, finished_at=1720364637.4, **fields)


def failed_item(task_id: str = "t1", code: str = "bad_request") -> dict[str, Any]:
    response = {"task_id": task_id, "success": False, "error": {"code": code, "message": "no"}}
    return item(task_id, response, finished_at=1720364637.4)


def register(*ids: str, now: datetime | None = None, grace: timedelta = GRACE, **fields: Any) -> int:
    registrations = [Registration(task_id, **fields) for task_id in ids]
    return store.register(registrations, now or utcnow(), timetable=Timetable(grace))


def record(
    payload: bytes,
    now: datetime | None = None,
    confirm: bool = False,
    unknown: UnknownBudget | None = None,
    **fields: Any,
) -> store.Recorded:
    callback = store.Callback(body=payload, size=len(payload), **fields)
    return store.record(callback, now or utcnow(), timetable=TIMETABLE, confirm=confirm, unknown=unknown)


def task(task_id: str = "t1") -> Task:
    """Return a task as the ledger knows it."""
    found = queries.find_task(task_id)
    assert found is not None
    return found


def claim(
    now: datetime | None = None, limit: int = 50, lease: timedelta = timedelta(minutes=2)
) -> store.Claim:
    """Claim known tasks, or doubtful ones if no known task is due."""
    now = now or utcnow()
    known = store.claim(now, limit=limit, lease=lease)
    return known if known.tasks else store.claim(now, limit=limit, lease=lease, doubtful=True)


def look_up(
    items: Sequence[Any] = (), now: datetime | None = None, *, error: str | None = None, **overrides: Any
) -> int:
    """Claim the due tasks, as the reconciler does, and apply `items` as answers, or `error` to all tasks."""
    now = now or utcnow()
    results = {result.task_id: result for result in map(read_item, items)}
    missing = Answer(error=error or ABSENT)
    settled = 0
    while (claimed := claim(now)).tasks:
        answers = {i: Answer(results[i]) if i in results else missing for i in claimed.ids}
        settled += apply(claimed, answers, now, **overrides)
    return settled


def give_up(items: Sequence[Any] = (), now: datetime | None = None, **overrides: Any) -> datetime:
    """Look up until there are enough late answers to give up. Return the time of the last one."""
    now = now or utcnow()
    for _ in range(ENOUGH_LATE_ANSWERS - 1):
        look_up(items, now, **overrides)
        now += WAIT_AFTER_LATE_ANSWER
    look_up(items, now, **overrides)
    return now


def apply(claimed: store.Claim, answers: Mapping[str, Answer], now: datetime, **overrides: Any) -> int:
    """Apply answers, with a wait of 30 s; give up after a day and doubt after three minutes."""
    waits = {"backoff": lambda *_: timedelta(seconds=30), "give_up_after": DAY, "doubt_after": GRACE}
    run_id = runs.open_run("test:1", now)
    return store.apply(claimed, answers, run_id, now, now, Patience(**waits | overrides))


def create_endpoint(url: str = "https://app.example/hook", is_app: bool = True, **fields: Any) -> Endpoint:
    """Make an endpoint, or return the one with this address."""
    known = {"host": endpoints.host_of(url), "created_at": utcnow()} | fields
    endpoint, _ = Endpoint.get_or_create(url=url, is_app=is_app, defaults=known)
    return endpoint


_sequences = itertools.count(1)


def create_forward(**fields: Any) -> Forward:
    """Make a forward as dealing makes it: its event is due to an endpoint."""
    now = fields.get("created_at", utcnow())
    status = fields.get("status", "pending")
    known = {
        "task_id": "t1",
        "sequence": next(_sequences),
        "type": "task.succeeded",
        "happened_at": now,
        "body": zlib.compress(b"{}"),
        "created_at": now,
        "next_attempt_at": now if status == "pending" else None,
        "ended_at": None if status == "pending" else now,
    }
    endpoint = fields.pop("endpoint", None) or create_endpoint()
    return Forward.create(endpoint=endpoint, **known | fields)


def prune(rows: datetime, tasks: datetime | None = None) -> int:
    """Delete rows from before a moment, and settled tasks from before another. Return how many rows went."""
    return pruning.prune_all(Old(rows, tasks), threading.Event()).total()
