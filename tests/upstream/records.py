"""The tasks that upstream knows: submitted, finished, or planted by a test."""

import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .options import Options
from .tasks import Json, Kind, Plan, draw_plan, draw_uuid, final_body, progress_body

# How many finished tasks are kept; the oldest are dropped.
MAX_RECORDS = 200_000


@dataclass(slots=True)
class Task:
    """One submitted task and its state."""

    plan: Plan
    type: str
    request: Json
    trace_id: str
    application_id: str
    created_at: float
    submitted: float
    keeps_record: bool
    finished_at: float | None = None
    response: Json | None = None
    # Whether a look-up sees the final state yet: the record may lag behind.
    revealed: bool = False
    callback: str | None = None
    callbacks: list[Json] = field(default_factory=list)
    lookups: int = 0
    outbox: deque[tuple[Kind, Json]] = field(default_factory=deque)
    sending: bool = False
    done: threading.Event | None = None

    @property
    def callback_url(self) -> str | None:
        """Return where callbacks go, if anywhere."""
        return self.request.get("callback_url") or None


@dataclass(slots=True)
class Counts:
    """What has happened so far; `finished` includes the failed ones."""

    submitted: int = 0
    finished: int = 0
    failed: int = 0
    callbacks_sent: int = 0
    callbacks_lost: int = 0
    callbacks_refused: int = 0
    callbacks_waiting: int = 0


class Records:
    """All tasks, under one lock. Nothing here waits or uses the network."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.counts = Counts()
        self.base_url = ""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._tasks: dict[str, Task] = {}
        self._planted: dict[str, Json] = {}
        self._traces: dict[str, list[str]] = {}
        account = random.Random(f"{options.seed}:account")
        self._application_id, self._credential_id = draw_uuid(account), draw_uuid(account)

    def open(self, task_type: str, request: Json, streaming: bool) -> Task:
        """Store a submission. Only one with a callback URL or `async` leaves a record."""
        # Copy through JSON, so that an in-process submission is stored exactly like one over HTTP.
        request = json.loads(json.dumps(request))
        keeps_record = bool(request.get("callback_url")) or request.get("async") is True
        with self._lock:
            plan = draw_plan(self.options, next(self._numbers), task_type, streaming)
            task = Task(
                plan=plan,
                type=task_type,
                request=request,
                trace_id=_text_or(request.get("trace_id"), plan.trace_id),
                application_id=_text_or(request.get("application_id"), self._application_id),
                created_at=round(time.time(), 3),
                submitted=time.monotonic(),
                keeps_record=keeps_record,
                done=None if keeps_record else threading.Event(),
            )
            self.counts.submitted += 1
            if keeps_record:
                self._keep(task)
        return task

    def add_record(self, record: Json) -> None:
        """Plant a task object that look-ups return verbatim, in place of any task with that id."""
        with self._lock:
            self._planted[record["id"]] = record
            if isinstance(trace_id := record.get("trace_id"), str):
                self._traces.setdefault(trace_id, []).append(record["id"])

    def finish(self, task: Task, *, reveal: bool) -> None:
        """Set the final state. Without `reveal` look-ups still see a running task."""
        response = final_body(task.plan, task.type, task.trace_id, self.base_url)
        with self._lock:
            task.response = response
            task.finished_at = round(time.time(), 3)
            task.revealed = reveal
            self.counts.finished += 1
            self.counts.failed += not response["success"]
            if task.callback_url and task.plan.lost:
                task.callback = "lost"
                self.counts.callbacks_lost += 1
        if task.done is not None:
            task.done.set()

    def reveal(self, task: Task) -> None:
        """Let look-ups see the final state."""
        with self._lock:
            task.revealed = True

    def queue_callback(self, task: Task, kind: Kind, body: Json) -> bool:
        """Put a callback into the task's outbox. Returns whether the caller must start to send from it."""
        with self._lock:
            task.outbox.append((kind, body))
            self.counts.callbacks_waiting += 1
            idle, task.sending = not task.sending, True
        return idle

    def next_callback(self, task: Task) -> tuple[Kind, Json] | None:
        """Take the oldest waiting callback; None when there is none left."""
        with self._lock:
            if not task.outbox:
                task.sending = False
                return None
            return task.outbox.popleft()

    def note_callback(self, task: Task, kind: Kind, at: float, status: int | None, error: str | None) -> None:
        """Record how one callback went. A status of None means that no answer came."""
        accepted = status is not None and 200 <= status < 300
        with self._lock:
            task.callbacks.append({"at": round(at, 3), "http_status": status, "kind": kind, "error": error})
            self.counts.callbacks_waiting -= 1
            self.counts.callbacks_sent += accepted
            self.counts.callbacks_refused += not accepted
            # One accepted final callback is enough, whichever of the two it was.
            if kind != "progress" and task.callback != "sent":
                task.callback = "sent" if accepted else "refused"

    def ids_of_traces(self, trace_ids: Iterable[str]) -> list[str]:
        """Return the ids of all tasks that carry one of these trace ids, oldest first."""
        with self._lock:
            return [task_id for trace_id in trace_ids for task_id in self._traces.get(trace_id, ())]

    def count_lookups(self, task_ids: Iterable[str]) -> None:
        """Count one look-up for each of these tasks."""
        with self._lock:
            for task_id in task_ids:
                if task := self._tasks.get(task_id):
                    task.lookups += 1

    def find(self, task_ids: Iterable[str]) -> list[Json]:
        """Return the task objects of the ids that are known, in the order of asking."""
        with self._lock:
            return [found for task_id in task_ids if (found := self._object(task_id)) is not None]

    def newest(self, matches: Json, since: float, until: float, offset: int, limit: int) -> list[Json]:
        """Return a page of all task objects, newest first; `matches` narrows by the values of fields."""
        with self._lock:
            rows = [
                (created_at, order, task_id)
                for order, (created_at, task_id, fields) in enumerate(self._listed())
                if since <= created_at <= until
                and all(fields.get(name) == value for name, value in matches.items())
            ]
            rows.sort(reverse=True)
            page = (self._object(task_id) for _, _, task_id in rows[offset : offset + limit])
            return [found for found in page if found is not None]

    def is_working(self, task_id: str) -> bool:
        """Tell whether the task is known and has not finished."""
        with self._lock:
            task = self._tasks.get(task_id)
            return task is not None and task.finished_at is None

    def truth(self) -> dict[str, Json]:
        """Return the true outcome of every task with a record. A planted record states its own."""
        with self._lock:
            return {
                task_id: {
                    "type": task.type,
                    "status": _status(task),
                    "response": task.response,
                    "callback": task.callback,
                    "callbacks": [dict(callback) for callback in task.callbacks],
                    "lookups": task.lookups,
                }
                for task_id, task in self._tasks.items()
            }

    def _keep(self, task: Task) -> None:
        self._tasks[task.plan.task_id] = task
        self._traces.setdefault(task.trace_id, []).append(task.plan.task_id)
        while len(self._tasks) > MAX_RECORDS:
            oldest = next(iter(self._tasks.values()))
            if oldest.finished_at is None or oldest.sending:
                break
            del self._tasks[oldest.plan.task_id]
            self._traces.pop(oldest.trace_id, None)

    def _listed(self) -> Iterator[tuple[float, str, Json]]:
        for task_id, task in self._tasks.items():
            if task_id not in self._planted:
                yield task.created_at, task_id, {"type": task.type, "application_id": task.application_id}
        for task_id, record in self._planted.items():
            created_at = record.get("created_at")
            yield float(created_at) if isinstance(created_at, int | float) else 0.0, task_id, record

    def _object(self, task_id: str) -> Json | None:
        if (planted := self._planted.get(task_id)) is not None:
            return planted
        task = self._tasks.get(task_id)
        return None if task is None else self._task_object(task)

    def _task_object(self, task: Task) -> Json:
        plan, final = task.plan, task.revealed
        record: Json = {
            "_id": plan.record_id,
            "id": plan.task_id,
            "type": task.type,
            "application_id": task.application_id,
            "credential_id": self._credential_id,
            "created_at": task.created_at,
            "started_at": min(round(task.created_at + 0.006, 3), task.finished_at or float("inf")),
            "trace_id": task.trace_id,
            "request": task.request,
        }
        if plan.has_extras:
            extras = {"job_id": plan.job_id, "hold": False, "mode": task.request.get("mode") or "fast"}
            record |= extras
            if final and task.response and "image_id" in task.response:
                record["image_id"] = plan.image_id
        if plan.state_style != "absent":
            record["state"] = _state_word(task) if plan.state_style == "word" else ""
        if final and task.finished_at is not None:
            record["response"] = task.response
            record["finished_at"] = task.finished_at
            record[plan.elapsed_name] = round(task.finished_at - task.created_at, 3)
        elif plan.running_response != "absent":
            record["response"] = self._running_response(task)
        return record

    def _running_response(self, task: Task) -> Json | None:
        if task.plan.running_response != "partial" or task.type == "describe":
            return None
        worked = (time.monotonic() - task.submitted) / (task.plan.work or 1)
        return progress_body(task.plan, max(1, min(99, int(100 * worked))), self.base_url)


def _text_or(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) and value else otherwise


def _status(task: Task) -> str | None:
    if task.response is None:
        return None
    return "succeeded" if task.response["success"] else "failed"


def _state_word(task: Task) -> str:
    if not task.revealed:
        return "generating"
    return "failed" if _status(task) == "failed" else "finished"
