"""Answers a synchronous submission once its result is here, in upstream's synchronous form."""

import json
import time
from collections.abc import Iterator
from typing import Any

from flask import Response, jsonify, stream_with_context

from receiver.ledger.engine.errors import DATABASE_ERRORS
from receiver.ledger.models import Submission, Task
from receiver.ledger.reading.queries import find_task
from receiver.upstream.relay import ANSWER_WITHIN_SECONDS
from receiver.upstream.results import EXPIRED, FAILED, PENDING
from receiver.upstream.submitting import as_answer, status_of
from receiver.web.gateway import books
from receiver.web.gateway.answers import error_body
from receiver.web.offload import offload
from receiver.web.waiting import current_waiting

# Routers close a connection that says nothing, some of them after 30 s. JSON may begin with white space.
SPACE_EVERY_SECONDS = 15.0
_AT_LEAST_SECONDS = 0.5


def wait_for_result(submission: Submission, task_id: str) -> Response:
    """Return the result of a submission's task.

    Within the first seconds a failure has the status that upstream gives it. Later the status is 200: white
    space has been sent ahead.
    """
    until = time.monotonic() + ANSWER_WITHIN_SECONDS
    task = _wait(task_id, SPACE_EVERY_SECONDS)
    if task is not None:
        books.untell_if_gone(submission)
        answer = _answer(task, submission)
        response = jsonify(answer)
        response.status_code = 504 if task.status == EXPIRED else status_of(answer, task.status == FAILED)
        return response
    later = stream_with_context(_to_caller(submission, _later(submission, task_id, until)))
    return Response(later, mimetype="application/json")


def _to_caller(submission: Submission, answer: Iterator[bytes]) -> Iterator[bytes]:
    """Yield an answer. If the caller hangs up before its end, a repeated submission gets its task."""
    try:
        yield from answer
    except GeneratorExit:
        books.untell(submission)
        raise


def _later(submission: Submission, task_id: str, until: float) -> Iterator[bytes]:
    waiting, task = current_waiting(), None
    while task is None and time.monotonic() < until and not waiting.has_ended:
        yield b" "
        task = _wait(task_id, SPACE_EVERY_SECONDS)
    # What is sent to a connection that its client has closed seems to arrive.
    books.untell_if_gone(submission)
    answer = _unfinished(submission, task_id) if task is None else _answer(task, submission)
    yield json.dumps(answer).encode()


def _wait(task_id: str, seconds: float) -> Task | None:
    """Return a task that is no longer pending, or None after so many seconds, or when waiting ends early."""
    began = time.monotonic()
    try:
        current_waiting().until_settled(task_id, seconds, is_counted=False)
        task = offload(find_task, task_id)
    except DATABASE_ERRORS:
        task = None  # the database may be back before the caller gives up
    if task is not None and task.status != PENDING:
        return task
    time.sleep(max(_AT_LEAST_SECONDS - (time.monotonic() - began), 0))
    return None


def _answer(task: Task, submission: Submission) -> dict[str, Any]:
    if task.status == EXPIRED:
        return _unfinished(submission, task.id)
    return as_answer(task.response, task.id, submission.trace_id)


def _unfinished(submission: Submission, task_id: str) -> dict[str, Any]:
    message = f"The result is not here yet. Look task {task_id} up later, and do not submit it again."
    return error_body("timeout", message, submission.trace_id) | {"task_id": task_id}
