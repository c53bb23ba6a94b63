"""What openapi.json says of each route that is for programs, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from receiver.ledger.choosing import STATES
from receiver.ledger.resending import DEFAULT_RATE, FASTEST, SLOWEST
from receiver.upstream.results import STATUSES
from receiver.web.api.registrations import MOST_TASKS
from receiver.web.api.schemas import (
    ANY,
    COUNT,
    MOMENT,
    SERVICE,
    TASK_ID,
    TEXT,
    TRUTH,
    Schema,
    listed,
    named,
    or_null,
    page,
    record,
)
from receiver.web.filters import FORWARD_TYPES, LONGEST_WAIT, MOST_LISTED, SETTLERS, VERDICTS

Access = Literal["nobody", "key", "caller", "token"]
Answers = Mapping[int, tuple[str, Schema]]


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a route. `answers` are those besides the errors that `access` brings.

    `endpoint` is Flask's name of the view. Parameters of the path are found in the path.
    """

    endpoint: str
    method: str
    path: str
    summary: str
    answers: Answers
    access: Access = "key"
    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Schema | None = None
    kind: str = "application/json"  # of the good answers


_ERROR = named("Error")
_TRUTHS: Schema = {"enum": ["true", "false"]}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 50}
_WAIT: Schema = {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT, "default": 0}
_SPAN = {"since": MOMENT, "until": MOMENT}
_TASKS = {
    "service": SERVICE,
    "status": {"enum": list(STATUSES)},
    "type": TEXT,
    "settled_by": {"enum": list(SETTLERS)},
    "disputed": _TRUTHS,
    "acknowledged": _TRUTHS,
    "missed": _TRUTHS,
    "key": TEXT,
    **_SPAN,
    "q": TEXT,
}
_FORWARDS = {
    "status": {"enum": list(STATES)},
    "endpoint": COUNT,
    "type": {"enum": list(FORWARD_TYPES)},
    "task": TEXT,
    "cause": TEXT,
    **_SPAN,
}
_PAGING = {"limit": _LIMIT, "before": TEXT}
_ORDER: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{name: or_null(schema) for name, schema in _FORWARDS.items()},
        "rate": {"type": "number", "minimum": SLOWEST, "maximum": FASTEST, "default": DEFAULT_RATE},
    },
}
_BAD = ("A parameter or the body is bad; the message says what to change.", _ERROR)
_TOO_LARGE = ("The body is over MAX_BODY_BYTES.", _ERROR)
_NEW: Schema = {
    "anyOf": [
        named("NewTask"),
        record(tasks={"type": "array", "items": named("NewTask"), "maxItems": MOST_TASKS}),
    ]
}
_READINESS = named("Readiness")
_UPSTREAMS = {
    200: ("Upstream's answer, whatever it is.", ANY),
    502: ("Upstream cannot be reached, and has taken nothing.", ANY),
    504: ("Upstream gave no answer, or it is unclear whether a submission was taken.", ANY),
}


def _no(what: str) -> tuple[str, Schema]:
    return (f"No such {what}.", _ERROR)


def _conflict(why: str) -> tuple[str, Schema]:
    return (why, _ERROR)


OPERATIONS = (
    *(
        Operation(
            "callbacks.receive",
            "post",
            path,
            "Receive a callback: upstream posts a result here. The path may end with a reference of yours.",
            {
                200: ("It is recorded; the answer has the task's status.", named("Received")),
                202: (
                    "It is kept, but it is unreadable, cut short, or waits in the spool.",
                    named("Received"),
                ),
                404: ("The token is not ours.", _ERROR),
                413: ("It is too large: only its beginning is kept.", _ERROR),
                429: ("Too many unknown ids or wrong tokens: it is not kept.", _ERROR),
                503: ("It is lost: neither the database nor the spool could take it.", _ERROR),
            },
            access="token",
            query={"service": SERVICE},
            body=ANY,
        )
        for path in ("/callbacks/{token}", "/callbacks/{token}/{ref}")
    ),
    Operation(
        "tasks.register",
        "post",
        "/api/tasks",
        f"Register one submitted task, or up to {MOST_TASKS:,}.",
        {
            201: (
                "All are registered. After the first few MB tasks come without their large fields.",
                record(items=listed(named("RegisteredTask")), created=COUNT),
            ),
            400: _BAD,
            409: _conflict("A task is known under another service; nothing is registered."),
            413: _TOO_LARGE,
        },
        body=_NEW,
    ),
    Operation(
        "tasks.list_tasks",
        "get",
        "/api/tasks",
        "List tasks, newest first.",
        {200: ("A page.", page("Task", or_null(TEXT))), 400: _BAD},
        query=_TASKS | _PAGING,
    ),
    Operation(
        "tasks.show_task",
        "get",
        "/api/tasks/{task_id}",
        "Show a task with its deliveries, look-ups, forwards and timeline, or wait for its result.",
        {200: ("The task.", named("WholeTask")), 400: _BAD, 404: _no("task")},
        query={"wait": _WAIT},
    ),
    Operation(
        "tasks.ask_now",
        "post",
        "/api/tasks/{task_id}/reconcile",
        "Have upstream asked about a task at once.",
        {202: ("The next run asks.", record(id=TEXT, next_lookup_at=MOMENT)), 404: _no("task")},
    ),
    Operation(
        "tasks.acknowledge",
        "post",
        "/api/tasks/{task_id}/acknowledge",
        "Acknowledge a task's dispute.",
        {200: ("The task.", named("Task")), 404: _no("task"), 409: _conflict("It is not disputed.")},
    ),
    Operation(
        "tasks.acknowledge_some",
        "post",
        "/api/tasks/acknowledge",
        "Acknowledge the newest disputes that a filter selects, up to 1,000.",
        {200: ("How many, and whether there are more.", record(acknowledged=COUNT, more=TRUTH)), 400: _BAD},
        query=_TASKS,
    ),
    Operation(
        "events.list_them",
        "get",
        "/api/events",
        "List events, oldest first, or wait for the next one.",
        {200: ("Those after the cursor, and the next cursor.", page("Event", COUNT)), 400: _BAD},
        query={"after": COUNT, "limit": _LIMIT, "wait": _WAIT},
    ),
    Operation(
        "deliveries.list_them",
        "get",
        "/api/deliveries",
        "List callbacks without their bodies, newest first.",
        {200: ("A page.", page("Delivery", or_null(TEXT))), 400: _BAD},
        query={"verdict": {"enum": list(VERDICTS)}, "task": TEXT, **_SPAN, **_PAGING},
    ),
    Operation(
        "forwards.list_them",
        "get",
        "/api/forwards",
        "List forwards, newest first.",
        {200: ("A page.", page("Forward", or_null(TEXT))), 400: _BAD},
        query=_FORWARDS | _PAGING,
    ),
    Operation(
        "forwards.show",
        "get",
        "/api/forwards/{forward_id}",
        "Show a forward with its body and its newest 100 attempts.",
        {200: ("The forward.", named("WholeForward")), 404: _no("forward")},
    ),
    Operation(
        "forwards.resend",
        "post",
        "/api/forwards/{forward_id}/resend",
        "Send a forward's event again.",
        {
            202: ("The forward that is due now, which may be this one.", named("Forward")),
            404: _no("forward"),
            409: _conflict("FORWARD_URL no longer names its endpoint."),
        },
    ),
    Operation(
        "forwards.dismiss",
        "post",
        "/api/forwards/{forward_id}/dismiss",
        "Give a forward up for good.",
        {
            200: ("The forward.", named("Forward")),
            404: _no("forward"),
            409: _conflict("It is neither pending nor failed."),
        },
    ),
    Operation(
        "forwards.resend_all",
        "post",
        "/api/forwards/resend",
        "Send again all that the filter in the body holds.",
        {202: ("The resending.", named("Resending")), 400: _BAD, 413: _TOO_LARGE},
        body=_ORDER,
    ),
    Operation(
        "forwards.list_resendings",
        "get",
        "/api/resendings",
        "List the newest 20 resendings.",
        {200: ("Newest first.", record(items=listed(named("Resending"))))},
    ),
    Operation(
        "forwards.show_resending",
        "get",
        "/api/resendings/{resending_id}",
        "Show how far a resending is.",
        {200: ("The resending.", named("Resending")), 404: _no("resending")},
    ),
    Operation(
        "forwards.stop",
        "post",
        "/api/resendings/{resending_id}/stop",
        "Stop a resending. What has been sent again stays so.",
        {200: ("The resending.", named("Resending")), 404: _no("resending"), 409: _conflict("It has ended.")},
    ),
    Operation(
        "endpoints.list_them",
        "get",
        "/api/endpoints",
        "List up to 100 endpoints with their health.",
        {200: ("Those in FORWARD_URL come first.", record(items=listed(named("Endpoint"))))},
    ),
    Operation(
        "endpoints.pause",
        "post",
        "/api/endpoints/{endpoint_id}/pause",
        "Send nothing to an endpoint until it is resumed.",
        {200: ("The endpoint.", named("Endpoint")), 404: _no("endpoint")},
    ),
    Operation(
        "endpoints.resume",
        "post",
        "/api/endpoints/{endpoint_id}/resume",
        "End the hold of an endpoint.",
        {200: ("The endpoint.", named("Endpoint")), 404: _no("endpoint")},
    ),
    Operation(
        "endpoints.test",
        "post",
        "/api/endpoints/{endpoint_id}/test",
        "Send a test event to an endpoint.",
        {
            200: ("What was sent and answered, good or bad.", named("Trial")),
            404: _no("endpoint"),
            409: _conflict("FORWARD_URL does not name it."),
        },
    ),
    Operation(
        "submissions.show_unclear",
        "get",
        "/api/submissions/unclear",
        "List the oldest 200 submissions whose answer was lost.",
        {200: ("Oldest first.", record(items=listed(named("Submission"))))},
    ),
    Operation(
        "health.healthz",
        "get",
        "/healthz",
        "Tell whether the process runs.",
        {200: ("It does.", record(ok=TRUTH))},
        access="nobody",
    ),
    Operation(
        "health.readyz",
        "get",
        "/readyz",
        "Tell whether callbacks are kept. The API key adds reasons and addresses.",
        {200: ("They go into the database.", _READINESS), 503: ("They do not.", _READINESS)},
        access="nobody",
    ),
    Operation(
        "metrics.metrics",
        "get",
        "/metrics",
        "Metrics for Prometheus.",
        {200: ("Text of Prometheus.", TEXT)},
        kind="text/plain",
    ),
    Operation(
        "openapi.show",
        "get",
        "/openapi.json",
        "This description.",
        {200: ("OpenAPI 3.1.", {"type": "object"})},
        access="nobody",
    ),
    Operation(
        "lookups.look_up",
        "post",
        "/{service}/tasks",
        "Look tasks up in upstream's own form: from the ledger where it knows the answer.",
        _UPSTREAMS,
        access="caller",
        body={"type": "object"},
    ),
    *(
        Operation(
            endpoint,
            method,
            path,
            "Upstream's own API, relayed; a submission is registered before it is answered.",
            _UPSTREAMS,
            access="caller",
            body=ANY if method != "get" else None,
        )
        for endpoint, methods in (
            ("gateway.read", ("get",)),
            ("gateway.write", ("post", "put", "patch", "delete")),
        )
        for method in methods
        for path in ("/{service}", "/{service}/{operation}")
    ),
)
PATH_SCHEMAS: dict[str, Schema] = {
    "token": TEXT,
    "ref": TEXT,
    "task_id": TASK_ID,
    "service": TEXT,
    "operation": TEXT,
    **dict.fromkeys(("forward_id", "resending_id", "endpoint_id"), COUNT),
}
