"""One submitted task, and what a look-up shows of it."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from .catalogue import Service
from .results import running_body
from .tasks import Json, Kind, Plan, progress_body


@dataclass(slots=True)
class Task:
    """One submitted task and its state."""

    plan: Plan
    service: Service
    type: str
    request: Json
    trace_id: str
    application_id: str
    user_id: str
    created_at: float
    submitted: float
    keeps_record: bool = False
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


def status(task: Task) -> str | None:
    """Return the true final state; None while the task works."""
    if task.response is None:
        return None
    return "succeeded" if task.response["success"] else "failed"


def task_object(task: Task, credential_id: str, base_url: str, running: str) -> Json:
    """Build the item of a look-up. `running` is the form of a running task's response, or `any` of them."""
    service, is_final = task.service, task.revealed
    form = task.plan.running_response if running == "any" else running
    if service.is_flat:
        head = {"task_id": task.plan.task_id, "trace_id": task.trace_id}
        return head | ((task.response or {}) if is_final else running_body(service, task.plan))
    record = _head(task, credential_id)
    if is_final and task.finished_at is not None:
        record["response"] = task.response
        if service.stamps:
            record["finished_at"] = task.finished_at
            record[task.plan.elapsed_name] = round(task.finished_at - task.created_at, 3)
    elif form != "absent":
        record["response"] = _running_response(task, form, base_url)
    return record


def _head(task: Task, credential_id: str) -> Json:
    plan = task.plan
    record: Json = {
        "_id": plan.record_id,
        "id": plan.task_id,
        "application_id": task.application_id,
        "credential_id": credential_id,
        "user_id": task.user_id,
        "created_at": task.created_at,
        "trace_id": task.trace_id,
        "request": _shown_request(task),
    }
    if task.service.has_type:
        record["type"] = task.type
    if task.service.stamps:
        record["started_at"] = min(round(task.created_at + 0.006, 3), task.finished_at or float("inf"))
    return record | (_extras(task) if task.service.has_progress else {})


def _extras(task: Task) -> Json:
    """Return what only some of Midjourney's items have."""
    plan, extras = task.plan, {}
    if plan.has_extras:
        extras = {"job_id": plan.job_id, "hold": False, "mode": task.request.get("mode") or "fast"}
        if task.revealed and task.response and "image_id" in task.response:
            extras["image_id"] = plan.image_id
    if plan.state_style != "absent":
        extras["state"] = _state_word(task) if plan.state_style == "word" else ""
    return extras


def _shown_request(task: Task) -> Json:
    if task.service.masks_async and task.request.get("async") and not task.callback_url:
        return task.request | {"callback_url": "dummy"}
    return task.request


def _running_response(task: Task, form: str, base_url: str) -> Json | None:
    if form in ("empty", "success"):
        return {"success": True, "task_id": task.plan.task_id} if form == "success" else {}
    if form != "partial" or task.type == "describe":
        return None
    if not task.service.has_progress:
        return running_body(task.service, task.plan)
    worked = (time.monotonic() - task.submitted) / (task.plan.work or 1)
    return progress_body(task.plan, max(1, min(99, int(100 * worked))), base_url)


def _state_word(task: Task) -> str:
    if not task.revealed:
        return "generating"
    return "failed" if status(task) == "failed" else "finished"
