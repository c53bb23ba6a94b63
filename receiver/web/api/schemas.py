"""The shapes that openapi.json names: JSON Schema, as plain data."""

from typing import Any

from receiver.ledger.choosing import STATES
from receiver.upstream.results import FAILED, MAX_ID_LENGTH, PENDING, STATUSES, SUCCEEDED
from receiver.upstream.services import SERVICES

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
TRUTH: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
MOMENT: Schema = {"type": "string", "format": "date-time"}
ANY: Schema = {}
SERVICE: Schema = {"enum": list(SERVICES)}
TASK_ID: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}


def or_null(schema: Schema) -> Schema:
    """Return what is of the schema or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def record(**fields: Schema) -> Schema:
    """Return an object that has all of these fields, and may get more in later versions."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def listed(schema: Schema) -> Schema:
    """Return an array."""
    return {"type": "array", "items": schema}


def named(name: str) -> Schema:
    """Return a reference to one of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def page(name: str, following: Schema) -> Schema:
    """Return a page of a list; `next` is the cursor of the following one."""
    return record(items=listed(named(name)), next=following)


_PROBLEM = record(code=TEXT, message=TEXT)
_TOLD_OF_TASK: dict[str, Schema] = {
    "id": TEXT,
    "service": TEXT,
    "type": or_null(TEXT),
    "ref": or_null(TEXT),
    "trace_id": or_null(TEXT),
    "status": {"enum": list(STATUSES)},
    "progress": or_null(NUMBER),
    "settled_by": or_null({"enum": ["callback", "lookup"]}),
    "confirmed": or_null(TRUTH),
    "disputed": TRUTH,
    "request": ANY,
    "response": ANY,
    "error": ANY,
    "registered_at": or_null(MOMENT),
    "submitted_at": or_null(MOMENT),
    "settled_at": or_null(MOMENT),
    "finished_at": or_null(MOMENT),
    "next_lookup_at": or_null(MOMENT),
    "last_lookup_error": or_null(TEXT),
    "acknowledged_at": or_null(MOMENT),
    "key": or_null(TEXT),
}
# The first few of many registered tasks come whole, the others without these.
_LARGE = ("request", "response", "error")
_TASK = record(**_TOLD_OF_TASK, deliveries=COUNT, lookups=COUNT)

_DELIVERY: dict[str, Schema] = {
    "id": COUNT,
    "received_at": MOMENT,
    "verdict": {"enum": ["unreadable", PENDING, SUCCEEDED, FAILED]},
    "ref": or_null(TEXT),
    "remote_addr": or_null(TEXT),
    "token": or_null(COUNT),
    "size": COUNT,
    "sha256": TEXT,
    "reread_at": or_null(MOMENT),
    "first_verdict": TEXT,
}
_FORWARD: dict[str, Schema] = {
    "id": COUNT,
    "status": {"enum": list(STATES)},
    "endpoint": COUNT,
    "url": TEXT,
    "webhook_id": TEXT,
    "type": TEXT,
    "task_id": TEXT,
    "sequence": COUNT,
    "happened_at": MOMENT,
    "created_at": MOMENT,
    "attempts": COUNT,
    "cause": or_null(TEXT),
    "ended_at": or_null(MOMENT),
    "resends": or_null(COUNT),
    "resent_at": or_null(MOMENT),
}
_ATTEMPT = record(
    id=COUNT,
    began_at=MOMENT,
    milliseconds=COUNT,
    url=TEXT,
    headers={"type": "object"},
    kind=TEXT,
    status=or_null(COUNT),
    answer=TEXT,
    error=or_null(TEXT),
)
_NEW_TASK: Schema = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": TASK_ID,
        "service": or_null(SERVICE),
        "type": or_null(TASK_ID),
        "ref": or_null(TASK_ID),
        "trace_id": or_null(TASK_ID),
        "submitted_at": or_null({"anyOf": [MOMENT, NUMBER]}),
        "callback_url": or_null({"type": "string", "format": "uri", "maxLength": 2000}),
    },
}

SCHEMAS: dict[str, Schema] = {
    "Error": record(error=_PROBLEM),
    "NewTask": _NEW_TASK,
    "Task": _TASK,
    "RegisteredTask": _TASK | {"required": [name for name in _TASK["required"] if name not in _LARGE]},
    "WholeTask": record(
        **_TOLD_OF_TASK,
        deliveries=listed(record(**_DELIVERY, duplicate=TRUTH)),
        lookups=listed(named("Lookup")),
        callback_url=or_null(TEXT),
        forwards=listed(named("Forward")),
        timeline=listed(record(at=MOMENT, event=TEXT, detail=TEXT)),
    ),
    "Lookup": record(
        id=COUNT,
        run=or_null(COUNT),
        asked_at=MOMENT,
        answered_at=MOMENT,
        verdict=or_null(TEXT),
        progress=or_null(NUMBER),
        error=or_null(TEXT),
    ),
    "Delivery": record(**_DELIVERY, task_id=or_null(TEXT), problem=or_null(_PROBLEM)),
    "Event": record(
        id=COUNT,
        type=TEXT,
        timestamp=MOMENT,
        status=TEXT,
        settled_by=or_null(TEXT),
        confirmed=or_null(TRUTH),
        data=record(sequence=COUNT, task=record(id=TEXT)),
    ),
    "Forward": record(**_FORWARD),
    "WholeForward": record(
        **_FORWARD | {"attempts": listed(_ATTEMPT)},
        next=or_null(record(at=or_null(MOMENT), because=TEXT)),
        body=TEXT,
    ),
    "Endpoint": record(
        id=COUNT,
        url=TEXT,
        in_forward_url=TRUTH,
        held_because=or_null(TEXT),
        held_at=or_null(MOMENT),
        next_probe_at=or_null(MOMENT),
        lately=record(delivered=COUNT, of=COUNT),
        waiting=COUNT,
        oldest_waiting_at=or_null(MOMENT),
        succeeded_at=or_null(MOMENT),
        failing_since=or_null(MOMENT),
        failed_at=or_null(MOMENT),
        failure=or_null(TEXT),
        created_at=MOMENT,
        retired_at=or_null(MOMENT),
    ),
    "Resending": record(
        id=COUNT,
        filter={"type": "object"},
        rate=NUMBER,
        total=COUNT,
        done=COUNT,
        created_at=MOMENT,
        ended_at=or_null(MOMENT),
        stopped_at=or_null(MOMENT),
    ),
    "Submission": record(
        trace_id=TEXT,
        service=TEXT,
        type=or_null(TEXT),
        key=or_null(TEXT),
        sent_at=MOMENT,
        unclear_at=or_null(MOMENT),
    ),
    "Trial": record(
        delivered=TRUTH,
        sent=record(url=TEXT, headers={"type": "object"}, body=TEXT),
        answered=record(
            kind=TEXT, status=or_null(COUNT), answer=TEXT, milliseconds=COUNT, error=or_null(TEXT)
        ),
    ),
    "Readiness": record(
        ready=TRUTH,
        callbacks={"enum": ["kept", "spooled", "refused"]},
        refused={"type": "object"},
        database={"enum": ["ok", "unreachable"]},
        schema=or_null({"enum": ["current", "behind"]}),
        spooled=or_null(COUNT),
        set_aside=or_null(COUNT),
        last_run=ANY,
        last_good_run=ANY,
        upstream=ANY,
        paused=ANY,
        paused_services=ANY,
        forwards=ANY,
        unclear=ANY,
        troubles=listed(_PROBLEM),
    ),
    "Received": {
        "anyOf": [
            record(received=TRUTH, task_id=TEXT, status={"enum": list(STATUSES)}),
            record(backstop_probe=TEXT, signature=TEXT, version=TEXT),
        ]
    },
    "Kept": record(received=TRUTH)
    | {"properties": {"received": TRUTH, "spooled": TRUTH, "readable": TRUTH, "error": _PROBLEM}},
}
