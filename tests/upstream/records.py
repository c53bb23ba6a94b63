"""The tasks that upstream knows: submitted, finished, or planted by a test."""

import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .catalogue import MIDJOURNEY, Operation
from .items import Task, status, task_object
from .options import Options
from .results import final_body
from .tasks import Json, Kind, draw_plan, draw_uuid

# How many finished tasks and payments are kept; the oldest are dropped.
MAX_RECORDS = 200_000


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
        # What leaves no task draws from numbers of its own, so that it shifts no task's course.
        self._others = itertools.count(1)
        self._tasks: dict[str, Task] = {}
        self._planted: dict[str, Json] = {}
        self._planted_services: dict[str, str] = {}
        self._paid: deque[Json] = deque(maxlen=MAX_RECORDS)
        self._traces: dict[str, list[str]] = {}
        account = random.Random(f"{options.seed}:account")
        self._application_id, self._credential_id = draw_uuid(account), draw_uuid(account)
        self._user_id = draw_uuid(account)

    def open(self, operation: Operation, request: Json, streaming: bool) -> Task:
        """Store a submission, which is paid. Only one with a callback URL or `async` leaves a record."""
        # Copy through JSON, so that an in-process submission is stored exactly like one over HTTP.
        request = json.loads(json.dumps(request))
        keeps_record = bool(request.get("callback_url")) or request.get("async") is True
        with self._lock:
            task = self._task(operation, request, next(self._numbers), streaming)
            task.keeps_record = keeps_record
            task.done = None if keeps_record else threading.Event()
            self.counts.submitted += 1
            if keeps_record:
                self._keep(task)
            self._pay(operation, task.plan.task_id, task.trace_id, request)
        return task

    def refuse(self, operation: Operation, request: Json) -> Task:
        """Return a task that was not taken, so that its failure can be told. It is neither kept nor paid."""
        with self._lock:
            task = self._task(operation, request, -next(self._others), False)
        task.plan = replace(task.plan, failure=("bad_request", "prompt is required"))
        task.response = final_body(task.service, task.plan, task.type, task.trace_id, self.base_url)
        return task

    def pay(self, operation: Operation, request: Json) -> tuple[str, str]:
        """Count a submission that is answered at once; return its task id and its trace id."""
        with self._lock:
            task = self._task(operation, request, -next(self._others), False)
            self._pay(operation, task.plan.task_id, task.trace_id, request)
        return task.plan.task_id, task.trace_id

    def paid(self) -> list[Json]:
        """Return every submission that upstream took, oldest first; twice the same one is paid twice."""
        with self._lock:
            return [dict(payment) for payment in self._paid]

    def add_record(self, record: Json, service: str = MIDJOURNEY.name) -> None:
        """Plant a task object that look-ups return verbatim, in place of any task with that id."""
        with self._lock:
            self._planted[record["id"]] = record
            self._planted_services[record["id"]] = service
            if isinstance(trace_id := record.get("trace_id"), str):
                self._traces.setdefault(trace_id, []).append(record["id"])

    def delete(self, service: str, task_id: str) -> bool:
        """Forget a task or a planted record; return whether there was one."""
        with self._lock:
            if self._service_of(task_id) != service:
                return False
            self._planted.pop(task_id, None)
            self._tasks.pop(task_id, None)
            return True

    def finish(self, task: Task, *, reveal: bool) -> None:
        """Set the final state. Without `reveal` look-ups still see a running task."""
        response = final_body(task.service, task.plan, task.type, task.trace_id, self.base_url)
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

    def find(self, task_ids: Iterable[str], service: str = MIDJOURNEY.name) -> list[Json]:
        """Return the task objects of the ids that the service knows, in the order of asking."""
        with self._lock:
            known = (task_id for task_id in task_ids if self._service_of(task_id) == service)
            return [found for task_id in known if (found := self._object(task_id)) is not None]

    def newest(self, matches: Json, since: float, until: float, offset: int, limit: int) -> list[Json]:
        """Return a page of all task objects, newest first; `matches` narrows by the values of fields."""
        with self._lock:
            rows = sorted(self._matching(matches, since, until), reverse=True)
            page = (self._object(task_id) for _, _, task_id in rows[offset : offset + limit])
            return [found for found in page if found is not None]

    def total(self, matches: Json, since: float, until: float) -> int:
        """Count the task objects that `newest` pages through."""
        with self._lock:
            return sum(1 for _ in self._matching(matches, since, until))

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
                    "service": task.service.name,
                    "type": task.type,
                    "trace_id": task.trace_id,
                    "prompt": task.request.get("prompt"),
                    "status": status(task),
                    "response": task.response,
                    "callback": task.callback,
                    "callbacks": [dict(callback) for callback in task.callbacks],
                    "lookups": task.lookups,
                }
                for task_id, task in self._tasks.items()
            }

    def _task(self, operation: Operation, request: Json, number: int, streaming: bool) -> Task:
        service = operation.service
        has_progress = service.has_progress
        plan = draw_plan(self.options, number, operation.type, streaming, has_progress=has_progress)
        if service.is_flat:
            plan = replace(plan, task_id=f"task_{plan.task_id.replace('-', '')}")
        return Task(
            plan=plan,
            service=service,
            type=operation.type,
            request=request,
            trace_id=_text_or(request.get("trace_id"), plan.trace_id),
            application_id=_text_or(request.get("application_id"), self._application_id),
            user_id=_text_or(request.get("user_id"), self._user_id),
            created_at=round(time.time(), 3),
            submitted=time.monotonic(),
        )

    def _pay(self, operation: Operation, task_id: str, trace_id: str, request: Json) -> None:
        payment = {"path": operation.path, "task_id": task_id, "trace_id": trace_id}
        self._paid.append(payment | {"prompt": request.get("prompt")})

    def _keep(self, task: Task) -> None:
        self._tasks[task.plan.task_id] = task
        self._traces.setdefault(task.trace_id, []).append(task.plan.task_id)
        while len(self._tasks) > MAX_RECORDS:
            oldest = next(iter(self._tasks.values()))
            if oldest.finished_at is None or oldest.sending:
                break
            del self._tasks[oldest.plan.task_id]
            self._traces.pop(oldest.trace_id, None)

    def _matching(self, matches: Json, since: float, until: float) -> Iterator[tuple[float, int, str]]:
        for order, (created_at, task_id, fields) in enumerate(self._listed()):
            is_match = all(fields.get(name) == value for name, value in matches.items())
            if is_match and since <= created_at <= until:
                yield created_at, order, task_id

    def _listed(self) -> Iterator[tuple[float, str, Json]]:
        for task_id, task in self._tasks.items():
            if task_id not in self._planted:
                fields = {"type": task.type, "application_id": task.application_id, "user_id": task.user_id}
                yield task.created_at, task_id, fields | {"service": task.service.name}
        for task_id, record in self._planted.items():
            created_at = record.get("created_at")
            when = float(created_at) if isinstance(created_at, int | float) else 0.0
            yield when, task_id, record | {"service": self._planted_services[task_id]}

    def _service_of(self, task_id: str) -> str | None:
        if task_id in self._planted:
            return self._planted_services[task_id]
        task = self._tasks.get(task_id)
        return None if task is None else task.service.name

    def _object(self, task_id: str) -> Json | None:
        if (planted := self._planted.get(task_id)) is not None:
            return planted
        if (task := self._tasks.get(task_id)) is None:
            return None
        return task_object(task, self._credential_id, self.base_url, self.options.running)


def _text_or(value: Any, otherwise: str) -> str:
    return value if isinstance(value, str) and value else otherwise
