"""Submissions and all other calls of the API: accepted, refused, answered late, or lost on the way."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .answers import Answer, Stream, bad_request, error_answer, json_answer, traced
from .at_once import CHAT_PATH, READS, chat, short_answer
from .catalogue import OPERATIONS, Operation
from .faults import draw_fault, fault_answer
from .items import Task
from .lookups import MAX_CALLS, Call, parsed
from .options import SUBMIT_FAULTS
from .tasks import Json, progress_body

if TYPE_CHECKING:
    from .stand_in import StandIn

# Faults that show that nothing was taken.
UNTAKEN = ("submit_429", "submit_400", "submit_503")
# The status of a synchronous submission whose task fails. The body is the result itself.
FAILURE_STATUS = {"bad_request": 400, "forbidden": 403, "api_error": 500, "timeout": 504}


class Submissions:
    """Answers every call of the API except look-ups, and remembers each."""

    def __init__(self, stand_in: StandIn) -> None:
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self._stand_in = stand_in
        self._scripted: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._received = 0

    def respond_next(self, answer: Answer, times: int) -> None:
        """Queue an answer for the next calls, whatever they ask. They take nothing."""
        with self._lock:
            self._scripted.extend([answer] * times)

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], raw: bytes, refusal: Answer | None
    ) -> Answer | Stream:
        """Answer one call. `refusal` is the error for its credentials, if any."""
        call = Call(time.time(), dict(headers), parsed(raw), method, path)
        number, scripted = self._receive(call)
        self._stand_in.stopping.wait(self._stand_in.options.submit_latency)
        if scripted is not None:
            return scripted
        answer = refusal or self._routed(call, number)
        return answer if "X-Trace-Id" in answer.headers else traced(answer, str(uuid.uuid4()))

    def _receive(self, call: Call) -> tuple[int, Answer | None]:
        with self._lock:
            self.calls.append(call)
            self._received += 1
            return self._received, self._scripted.popleft() if self._scripted else None

    def _routed(self, call: Call, number: int) -> Answer | Stream:
        path = call.path.partition("?")[0]
        if call.method != "POST":
            return json_answer(READS[path]) if path in READS else not_found(path)
        operation = OPERATIONS.get(path)
        if operation is None and path != CHAT_PATH:
            return not_found(path)
        request = call.body
        if not isinstance(request, dict) or not isinstance(request.get("callback_url"), str | None):
            return bad_request("The body has to be an object, and its `callback_url` a text.")
        if operation is None:
            return chat(request, self._stand_in.options.chat_gap, self._stand_in.stopping)
        return self._submitted(operation, request, call, number)

    def _submitted(self, operation: Operation, request: Json, call: Call, number: int) -> Answer | Stream:
        options = self._stand_in.options
        fault, trace_id = draw_fault(options, SUBMIT_FAULTS, "submit", number)
        if fault in UNTAKEN:
            return self._untaken(fault, operation, request, trace_id)
        if operation.at_once and not (operation.calls_back and request.get("callback_url")):
            task_id, trace_id = self._stand_in.records.pay(operation, request)
            short = short_answer(operation.service.name, operation.type, request, task_id)
            answer: Answer | Stream = traced(json_answer(short), trace_id)
        else:
            answer = self._accepted(operation, request, call, fault)
        return answer if fault is None else self._lost(fault, answer, trace_id)

    def _untaken(self, fault: str, operation: Operation, request: Json, trace_id: str) -> Answer:
        if fault != "submit_400":
            return fault_answer(fault, trace_id, self._stand_in.options.retry_after)
        # Even a refused submission is called back about, with an id that its sender never learns.
        refused = self._stand_in.refuse(operation, request)
        return error_answer(400, "bad_request", "prompt is required", refused.trace_id)

    def _accepted(
        self, operation: Operation, request: Json, call: Call, fault: str | None
    ) -> Answer | Stream:
        streaming = "application/x-ndjson" in call.headers.get("accept", "")
        task = self._stand_in.open_task(operation, request, streaming)
        if task.done is None or fault is not None:
            told = {"task_id": task.plan.task_id}
            if operation.service.tells_trace:
                told["trace_id"] = task.trace_id
            return traced(json_answer(told), task.trace_id)
        if streaming:
            lines = Stream(200, self._lines(task, task.done), {"Content-Type": "application/x-ndjson"})
            return traced(lines, task.trace_id)
        return traced(self._held(task, task.done), task.trace_id)

    def _lost(self, fault: str, answer: Answer | Stream, trace_id: str) -> Answer:
        """Return what becomes of the answer of a submission that was taken."""
        if fault == "submit_half" and isinstance(answer, Answer):
            return replace(answer, fate="cut")
        if fault == "submit_hang":
            self._stand_in.stopping.wait(self._stand_in.options.hang_seconds)
        if fault in ("submit_500", "submit_504"):
            return fault_answer(fault, trace_id, self._stand_in.options.retry_after)
        return Answer(503, b"", fate="hang")

    def _held(self, task: Task, done: threading.Event) -> Answer:
        if not self._wait(done):
            return Answer(503, b"", fate="hang")
        body = task.response or {}
        return json_answer(body, 200 if body.get("success") else FAILURE_STATUS[body["error"]["code"]])

    def _lines(self, task: Task, done: threading.Event) -> Iterator[bytes]:
        for step in task.plan.steps:
            if step.kind != "progress" or step.after >= task.plan.work:
                continue
            self._stand_in.stopping.wait(max(0.0, task.submitted + step.after - time.monotonic()))
            yield _line(progress_body(task.plan, step.progress, self._stand_in.url))
        if self._wait(done):
            yield _line(task.response)

    def _wait(self, done: threading.Event) -> bool:
        while not done.wait(0.2):
            if self._stand_in.stopping.is_set():
                return False
        return True


def not_found(path: str) -> Answer:
    """Answer that upstream has nothing at a path."""
    return error_answer(404, "no_api", f"There is nothing at {path}.")


def _line(content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"
