"""The whole stand-in: submissions, callbacks and look-ups together, with or without HTTP."""

import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Self

from .answers import Answer, error_answer
from .callbacks import Sender
from .catalogue import MIDJOURNEY, OPERATIONS, Operation
from .items import Task
from .lookups import Call, Lookups, account_error
from .options import Options
from .records import Records
from .scheduler import Scheduler
from .server import Server
from .submissions import Submissions
from .tasks import Json, Step, progress_body


class StandIn:
    """A stand-in for upstream. Use it as a context manager, or call `start` and `stop`."""

    def __init__(self, options: Options | None = None, port: int = 0) -> None:
        self.options = options or Options()
        self.stopping = threading.Event()
        self.records = Records(self.options)
        self.lookups = Lookups(self.records, self.options, self.stopping)
        self.submissions = Submissions(self)
        self._scheduler = Scheduler()
        self._sender = Sender(self.records)
        self._server = Server(self, port)
        self.port = self._server.port
        self.url = self.records.base_url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start to serve."""
        self._scheduler.start()
        self._server.start()

    def stop(self) -> None:
        """Stop serving and sending. Held calls and callbacks in flight are aborted."""
        self.stopping.set()
        self._scheduler.stop()
        self._sender.stop()
        self._server.stop()

    def submit(
        self, task_type: str, request: Json, *, streaming: bool = False, service: str = MIDJOURNEY.name
    ) -> str:
        """Submit a task without HTTP and return its id; `streaming` asks for progress callbacks."""
        operation = OPERATIONS.get(f"/{service}/{task_type}")
        if operation is None or not operation.calls_back:
            raise ValueError(f"{service} has no tasks of the type {task_type!r}")
        return self.open_task(operation, request, streaming).plan.task_id

    def open_task(self, operation: Operation, request: Json, streaming: bool) -> Task:
        """Store a submission and schedule its steps."""
        task = self.records.open(operation, request, streaming)
        for step in task.plan.steps:
            if step.kind == "final" or (task.callback_url and not task.plan.lost):
                self._scheduler.at(task.submitted + step.after, partial(self._take, task, step))
        return task

    def refuse(self, operation: Operation, request: Json) -> Task:
        """Refuse a submission, and call back about its failure. It is neither kept nor paid."""
        task = self.records.refuse(operation, request)
        if task.callback_url:
            self._call_back(task, Step(0, "final"), task.response or {})
        return task

    def add_record(self, record: Json, service: str = MIDJOURNEY.name) -> None:
        """Plant a task object with an `id`, which look-ups return verbatim. `truth` does not list it."""
        self.records.add_record(record, service)

    def respond_next(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", times: int = 1
    ) -> None:
        """Answer the next look-up calls with exactly this. A missing Content-Length is added."""
        self.lookups.respond_next(Answer(status, body, headers or {}), times)

    def respond_next_submission(
        self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"", times: int = 1
    ) -> None:
        """Answer the next calls that are no look-ups with exactly this. They take nothing."""
        self.submissions.respond_next(Answer(status, body, headers or {}), times)

    def change(self, **changes: Any) -> None:
        """Change options while running, all or none. Raises ValueError for a bad one."""
        self.options.change(changes)

    @property
    def calls(self) -> list[Call]:
        """Return the look-up calls received so far, oldest first."""
        return list(self.lookups.calls)

    @property
    def submitted(self) -> list[Call]:
        """Return the calls of the API received so far, oldest first, except look-ups."""
        return list(self.submissions.calls)

    def paid(self) -> list[Json]:
        """Return each submission that was taken: `path`, `task_id`, `trace_id` and `prompt`."""
        return self.records.paid()

    def truth(self) -> dict[str, Json]:
        """Return the true outcome of each task that has a record."""
        return self.records.truth()

    def stats(self) -> Json:
        """Return counts of tasks, callbacks and look-up calls."""
        counts = asdict(self.records.counts)
        return counts | {"working": counts["submitted"] - counts["finished"]} | self.lookups.stats()

    def wait_idle(self, seconds: float = 10) -> bool:
        """Wait until all tasks have finished and all callbacks were sent. Returns False at the time-out."""
        deadline = time.monotonic() + seconds
        while self._scheduler.pending or self.records.counts.callbacks_waiting:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def refusal(self, authorization: str | None) -> Answer | None:
        """Return the error for a call with these credentials; None if they are valid."""
        if (error := account_error(self.options)) is not None:
            return error
        if not authorization:
            return error_answer(400, "no_token", "No token was given.")
        scheme, _, token = authorization.partition(" ")
        expected = self.options.token.encode()
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), expected):
            return None
        return error_answer(401, "invalid_token", "The token is not valid.")

    def _take(self, task: Task, step: Step) -> None:
        if step.kind == "progress":
            self._call_back(task, step, progress_body(task.plan, step.progress, self.url))
            return
        if step.kind == "final":
            lag = self.options.record_lag
            self.records.finish(task, reveal=not lag)
            if lag:
                self._scheduler.at(time.monotonic() + lag, partial(self.records.reveal, task))
            if not task.callback_url or task.plan.lost:
                return
        self._call_back(task, step, task.response or {})

    def _call_back(self, task: Task, step: Step, body: Json) -> None:
        if self.records.queue_callback(task, step.kind, body):
            self._sender.send_from(task)
