"""The Tasks API's questions, and their answers without faults."""

import hashlib
from typing import Any

from .answers import Answer, bad_request, error_answer, json_answer
from .catalogue import Service
from .options import Options
from .records import Records
from .tasks import Json

DEFAULT_LIMIT = 12
LIST_FILTERS = ("application_id", "user_id", "type")


def answer_lookup(records: Records, options: Options, service: Service, body: Any) -> Answer:
    """Answer `retrieve`, `retrieve_batch` and `delete` without faults."""
    action = body.get("action", "retrieve") if isinstance(body, dict) else None
    if action not in ("retrieve", "retrieve_batch", "delete"):
        return bad_request(f"The action {action!r} is not supported.")
    if problem := _problem(body):
        return bad_request(problem)
    if action == "delete":
        return json_answer(
            {"id": body.get("id"), "deleted": records.delete(service.name, str(body.get("id")))}
        )
    ids, trace_ids = asked(body)
    if poisoned := sorted({*ids} & {*options.poison}):
        return error_answer(400, options.poison_code, f"Invalid id: {poisoned[0]}")
    if action == "retrieve":
        if not ids and not trace_ids:
            return bad_request("Either `id` or `trace_id` is required.")
        # A trace id wins over an id. It may belong to several tasks: take the newest.
        found = records.find(records.ids_of_traces(trace_ids)[::-1] if trace_ids else ids, service.name)
        if not found and service.is_flat:
            return error_answer(404, "no_task", "task not found")
        return json_answer(found[0] if found else {})
    return json_answer(_batch(records, options, service, body))


def _batch(records: Records, options: Options, service: Service, body: Json) -> Json:
    offset, limit = body.get("offset", 0), body.get("limit", DEFAULT_LIMIT)
    if body.get("ids") is None and body.get("trace_ids") is None:
        return _list(records, service, body, offset, limit)
    ids, trace_ids = asked(body)
    # An order of upstream's own, the same for every page of one batch.
    wanted = sorted(
        {*ids, *records.ids_of_traces(trace_ids)}, key=lambda task_id: _rank(options.seed, task_id)
    )
    items = records.find(wanted, service.name)[offset : offset + limit]
    return {"items": items, "count": len(items)}


def _list(records: Records, service: Service, body: Json, offset: int, limit: int) -> Json:
    """Page through the account's tasks of a service. Unlike that of a batch, the count is the total."""
    matches = {name: body[name] for name in LIST_FILTERS if body.get(name) is not None}
    matches["service"] = service.name
    since, until = body.get("created_at_min"), body.get("created_at_max")
    span = (float("-inf") if since is None else since, float("inf") if until is None else until)
    items = records.newest(matches, *span, offset, limit)
    return {"items": items, "count": records.total(matches, *span)}


def _rank(seed: int, task_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{task_id}".encode(errors="replace"), digest_size=8).digest()


def asked(body: Any) -> tuple[list[str], list[str]]:
    """Return the ids and the trace ids that a call asks about, without duplicates and junk."""
    if not isinstance(body, dict):
        return [], []
    if body.get("action", "retrieve") == "retrieve":
        return _texts([body.get("id", body.get("task_id"))]), _texts([body.get("trace_id")])
    return _texts(body.get("ids")), _texts(body.get("trace_ids"))


def _texts(value: Any) -> list[str]:
    parts = value if isinstance(value, list) else []
    return list(dict.fromkeys(part for part in parts if isinstance(part, str)))


def _problem(body: Json) -> str | None:
    """Return what is wrong with a look-up; None if nothing is."""
    for name in ("ids", "trace_ids"):
        value = body.get(name)
        if value is not None and not (
            isinstance(value, list) and all(isinstance(part, str) for part in value)
        ):
            return f"`{name}` has to be a list of texts."
    for name, least in (("limit", 1), ("offset", 0)):
        value = body.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            return f"`{name}` has to be a whole number from {least} up."
    for name in ("created_at_min", "created_at_max"):
        value = body.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            return f"`{name}` has to be a number of seconds."
    return None
