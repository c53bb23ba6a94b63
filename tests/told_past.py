"""What apps were told before: endpoints that work, fail and are held, and what became of their events."""

import json
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from receiver.ledger.engine.db import writing
from receiver.ledger.models import Attempt, Endpoint, Forward, Task
from receiver.ledger.telling import body_in_upstreams_form
from tests.factories import create_endpoint, create_forward

SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
_OOPS = b'{"error": "the queue is full", "retry": true}'


APP = "https://app.example.com/hooks"
FAILING = "https://billing.example.com/hooks?source=backstop"
GONE = "https://old.example.com/webhooks/backstop"


def make_told(now: datetime) -> int:
    """Make endpoints and forwards of tasks that have results. Returns the number of a dead letter."""
    tasks = list(Task.select().where(Task.lookup_status == "succeeded").order_by(Task.created_at).limit(14))
    with writing():
        well = create_endpoint(APP, created_at=now - 30 * DAY, succeeded_at=now)
        for number, task in enumerate(tasks[:6]):
            _deliver(_make(well, task, now - number * 7 * MINUTE, status="delivered"))
        server = create_endpoint("https://orders.example.net:443", is_app=False, succeeded_at=now - HOUR)
        for task in tasks[:2]:
            url = f"https://orders.example.net/done?order={task.id[:6]}"
            _deliver(_make(server, task, now - HOUR, status="delivered", url=url))
        _make_gone(tasks, now)
        return _make_failing(tasks, now)


def _make_gone(tasks: Sequence[Task], now: datetime) -> None:
    gone = create_endpoint(
        GONE,
        created_at=now - 30 * DAY,
        succeeded_at=now - 2 * DAY,
        **{"failing_since": now - 2 * DAY, "failed_at": now - 20 * MINUTE, "failure": "410 Gone"},
        **{"held_at": now - 2 * DAY, "held_because": "gone", "probe_at": now + 40 * MINUTE},
    )
    for number, task in enumerate(tasks[:3]):
        _make(
            gone,
            task,
            now - number * 6 * HOUR,
            next_attempt_at=now + 40 * MINUTE,
            cause="410 Gone",
            attempts=2,
        )


def _make_failing(tasks: Sequence[Task], now: datetime) -> int:
    failing = create_endpoint(
        FAILING,
        created_at=now - 30 * DAY,
        succeeded_at=now - 26 * MINUTE,
        **{"failing_since": now - 25 * MINUTE, "failed_at": now - MINUTE, "failure": "HTTP 503"},
    )
    for number, task in enumerate(tasks[6:10]):
        at = now - (25 - number) * MINUTE
        waits = _make(failing, task, at, next_attempt_at=now + 4 * MINUTE, cause="HTTP 503", attempts=3)
        _fail(waits, at, 503, (5 * SECOND, 65 * SECOND, 5 * MINUTE))
    dead = 0
    for number, cause in enumerate(("HTTP 500", "HTTP 500", "no answer in time")):
        at = now - (9 + number) * DAY
        over = {"status": "failed", "ended_at": now - number * HOUR, "cause": cause, "attempts": 5}
        forward = _make(failing, tasks[10 + number], at, **over)
        status = None if cause.startswith("no") else 500
        _fail(forward, at, status, (SECOND, 7 * SECOND, 40 * SECOND, 6 * MINUTE, 8 * DAY))
        dead = dead or forward.id
    return dead


def _make(endpoint: Endpoint, task: Task, at: datetime, **fields: object) -> Forward:
    body = body_in_upstreams_form(task, "settled") or b"{}"
    known = {
        "sequence": 1,
        "type": "task.succeeded",
        "body": zlib.compress(body),
        "created_at": at,
        "began_at": at,
    }
    return create_forward(endpoint=endpoint, task_id=task.id, **known | fields)


def _deliver(forward: Forward) -> None:
    _attempt(forward, forward.created_at, 204, b"")
    Forward.update(attempts=1).where(Forward.id == forward.id).execute()


def _fail(forward: Forward, at: datetime, status: int | None, waits: Sequence[timedelta]) -> None:
    for wait in waits:
        _attempt(forward, at + wait, status, _OOPS if status else b"")


def _attempt(forward: Forward, at: datetime, status: int | None, answer: bytes) -> None:
    kinds = {204: "delivered", 503: "throttled", None: "timeout"}
    signature = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="
    headers = {
        "content-type": "application/json",
        "webhook-id": forward.message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
    Attempt.create(
        forward=forward,
        began_at=at,
        took=15.0 if status is None else 0.084,
        url=forward.url or forward.endpoint.url,
        headers=json.dumps(headers),
        kind=kinds.get(status, "refused"),
        status=status,
        answer=answer,
        error="no whole answer in time" if status is None else None,
    )
