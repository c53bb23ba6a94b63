"""What openapi.json says of each route that is for programs, as plain data."""

from receiver.upstream.results import STATUSES
from receiver.web.api.forward_operations import FORWARD_OPERATIONS
from receiver.web.api.operation import BAD, ERROR, LIMIT, PAGING, SPAN, TOO_LARGE, Operation, conflict, no
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
from receiver.web.filters import LONGEST_WAIT, SETTLERS, VERDICTS

_TRUTHS: Schema = {"enum": ["true", "false"]}
_WAIT: Schema = {"type": "integer", "minimum": 0, "maximum": LONGEST_WAIT, "default": 0}
_TASKS = {
    "service": SERVICE,
    "status": {"enum": list(STATUSES)},
    "type": TEXT,
    "settled_by": {"enum": list(SETTLERS)},
    "disputed": _TRUTHS,
    "acknowledged": _TRUTHS,
    "missed": _TRUTHS,
    "key": TEXT,
    **SPAN,
    "q": TEXT,
}
_NEW: Schema = {
    "anyOf": [
        named("NewTask"),
        record(tasks={"type": "array", "items": named("NewTask"), "maxItems": MOST_TASKS}),
    ]
}
_ORDERED = ("The reconciler does it within a minute.", record(ordered_at=MOMENT))
_READINESS = named("Readiness")
# Of the gateway's own. Beside them, whatever upstream answers.
_UPSTREAMS = {
    502: ("Upstream cannot be reached, and has taken nothing.", ANY),
    504: ("Upstream gave no answer, or it is unclear whether a submission was taken.", ANY),
}

OPERATIONS = (
    *(
        Operation(
            "callbacks.receive",
            "post",
            path,
            "Receive a callback: upstream posts a result here. The path may end with a reference of yours.",
            {
                200: (
                    "It is recorded, and the answer has the task's status. Or it is a probe of `check`.",
                    named("Received"),
                ),
                202: ("It is kept, but it is unreadable, cut short, or waits in the spool.", named("Kept")),
                404: ("The token is not ours.", ERROR),
                413: ("It is too large: only its beginning is kept.", ERROR),
                429: ("Too many unknown ids or wrong tokens: it is not kept.", ERROR),
                503: ("It is lost: neither the database nor the spool could take it.", ERROR),
            },
            access="token",
            query={"service": SERVICE},
            body=ANY,
        )
        for path in ("/callbacks/{token}", "/callbacks/{token}/{ref}")
    ),
    Operation(
        "registering.register",
        "post",
        "/api/tasks",
        f"Register one submitted task, or up to {MOST_TASKS:,}.",
        {
            201: (
                "All are registered. After the first few MB tasks come without their large fields.",
                record(items=listed(named("RegisteredTask")), created=COUNT),
            ),
            400: BAD,
            409: conflict("A task is known under another service; nothing is registered."),
            413: TOO_LARGE,
        },
        body=_NEW,
    ),
    Operation(
        "tasks.list_tasks",
        "get",
        "/api/tasks",
        "List tasks, newest first.",
        {200: ("A page.", page("Task", or_null(TEXT))), 400: BAD},
        query=_TASKS | PAGING,
    ),
    Operation(
        "tasks.show_task",
        "get",
        "/api/tasks/{task_id}",
        "Show a task with its deliveries, look-ups, forwards and timeline, or wait for its result.",
        {200: ("The task.", named("WholeTask")), 400: BAD, 404: no("task")},
        query={"wait": _WAIT},
    ),
    Operation(
        "tasks.ask_now",
        "post",
        "/api/tasks/{task_id}/reconcile",
        "Ask upstream about a task at once.",
        {202: ("The next run asks.", record(id=TEXT, next_lookup_at=MOMENT)), 404: no("task")},
    ),
    Operation(
        "tasks.acknowledge",
        "post",
        "/api/tasks/{task_id}/acknowledge",
        "Acknowledge a task's dispute.",
        {200: ("The task.", named("Task")), 404: no("task"), 409: conflict("It is not disputed.")},
    ),
    Operation(
        "tasks.acknowledge_some",
        "post",
        "/api/tasks/acknowledge",
        "Acknowledge the newest disputes that a filter selects, up to 1,000.",
        {
            200: ("How many, and whether there are more.", record(acknowledged=COUNT, more=TRUTH)),
            400: BAD,
            413: TOO_LARGE,
        },
        query=_TASKS,
    ),
    Operation(
        "events.list_them",
        "get",
        "/api/events",
        "List events, oldest first, or wait for the next one.",
        {200: ("Those after the cursor, and the next cursor.", page("Event", COUNT)), 400: BAD},
        query={"after": COUNT, "limit": LIMIT, "wait": _WAIT},
    ),
    Operation(
        "deliveries.list_them",
        "get",
        "/api/deliveries",
        "List callbacks without their bodies, newest first.",
        {200: ("A page.", page("Delivery", or_null(TEXT))), 400: BAD},
        query={"verdict": {"enum": list(VERDICTS)}, "task": TEXT, **SPAN, **PAGING},
    ),
    *FORWARD_OPERATIONS,
    Operation(
        "upstream.probe",
        "post",
        "/api/upstream/probe",
        "Find out at once whether the pause is over in which upstream refuses look-ups.",
        {202: _ORDERED, 409: conflict("Nothing is paused, or only until a time that upstream has named.")},
    ),
    Operation(
        "upstream.discover",
        "post",
        "/api/upstream/discover",
        "Look for your tasks in upstream's lists at once.",
        {202: _ORDERED, 409: conflict("PUBLIC_URL is missing.")},
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
        {
            200: ("They go into the database.", _READINESS),
            429: ("A wrong key, after many of them: see Retry-After.", ERROR),
            503: ("They do not.", _READINESS),
        },
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
            "Upstream's own API, relayed. A submission is registered before it is answered.",
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
