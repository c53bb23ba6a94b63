"""Reads results from upstream's bytes and JSON. Pure, with one rule set for all services.

The rules are those of upstream's published clients ("When is a task finished?"). Any input may be forged or
broken, so the code checks every type.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from receiver.redact import mask_tokens, mask_tokens_within, may_hold_token
from receiver.upstream.encodings import LARGEST as LARGEST
from receiver.upstream.encodings import decoded
from receiver.upstream.envelopes import envelope_of
from receiver.upstream.strict_json import MAX_VALUES as MAX_VALUES
from receiver.upstream.strict_json import dump as dump
from receiver.upstream.strict_json import parse_json as parse_json
from receiver.upstream.submissions import LONGEST_TEXT, bounded
from receiver.upstream.unreadable import Unreadable as Unreadable
from receiver.upstream.verdicts import FAILED as FAILED
from receiver.upstream.verdicts import PENDING as PENDING
from receiver.upstream.verdicts import SUCCEEDED as SUCCEEDED
from receiver.upstream.verdicts import Verdict, finished_at, judge, read_moment

EXPIRED = "expired"
FINAL = (FAILED, SUCCEEDED)
STATUSES = (PENDING, FAILED, SUCCEEDED, EXPIRED)

MAX_ID_LENGTH = 200
_LONGEST_ERROR, _LONGEST_ERROR_PART = 4000, 1000  # characters
_LONGEST_PROMPT = 65536  # characters
LONGEST_MODE = 64
_RANKS = {PENDING: 0, FAILED: 1, SUCCEEDED: 2}
# The fields of an item beside its response.
_AROUND = frozenset(
    {"id", "_id", "type", "trace_id", "application_id", "credential_id", "user_id", "api_id"}
    | {"created_at", "started_at", "finished_at", "elapsed", "duration", "hold", "mode", "email"}
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one callback or one look-up says about one task.

    `response`, `error`, `request` and `envelope` are strict JSON texts. `key` orders one witness's results
    bytewise by status, then progress, then content. So the greatest result does not depend on the order of
    arrival.
    """

    task_id: str
    status: str
    progress: float | None
    response: str | None
    error: str | None
    key: bytes
    type: str | None = None
    trace_id: str | None = None
    request: str | None = None
    envelope: str | None = None
    prompt: str | None = None
    mode: str | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None


def read_callback(body: bytes, headers: Iterable[tuple[str, str]] = (), largest: int = LARGEST) -> Result:
    """Read a callback's body, of at most `largest` bytes when decompressed.

    Raises Unreadable when it is not a task's result.
    """
    content, text, told = _read_body(body, headers, largest)
    task = _unwrapped(told)
    # A bare response names its task in `task_id`. Its `id` may be anything.
    is_item = task is not told or "response" in task
    task_id = _read_id(_either(task, "task_id", "id") if is_item else task.get("task_id"), "task_id")
    if may_hold_token(text):
        task = mask_tokens_within(task)
    response = mask_tokens_within(_object(task["response"])) if "response" in task else task
    verdict = judge(response, task, _object(task["request"]) if "request" in task else None)
    return Result(
        task_id=task_id,
        status=verdict.status,
        progress=verdict.progress,
        response=dump(response) if response else None,
        error=_error_of(response, verdict),
        key=_key(verdict.status, verdict.progress, content),
        trace_id=clean_text(task.get("trace_id")) or clean_text(response.get("trace_id")),
    )


def read_item(item: object) -> Result:
    """Read a task object of the Tasks API. Raises Unreadable when it is not one."""
    if not isinstance(item, dict):
        raise Unreadable("not_an_object", "The item is not a JSON object.")
    given = _unwrapped(item)
    task_id = _read_id(_either(given, "id", "task_id"), "id")
    task: dict[str, Any] = mask_tokens_within(given)
    response = task if _is_its_own_response(task) else _masked_object(task, given, "response")
    request = _masked_object(task, given, "request")
    verdict = judge(response, task, request)
    return Result(
        task_id=task_id,
        status=verdict.status,
        progress=verdict.progress,
        response=dump(response) if response else None,
        error=_error_of(response, verdict),
        key=_key(verdict.status, verdict.progress, json.dumps(response, sort_keys=True).encode()),
        type=clean_text(task.get("type")),
        trace_id=clean_text(task.get("trace_id")) or clean_text(response.get("trace_id")),
        request=_kept_of(request),
        envelope=envelope_of(task, response, request),
        prompt=clean_text(request.get("prompt"), limit=_LONGEST_PROMPT),
        mode=clean_text(request.get("mode"), limit=LONGEST_MODE),
        submitted_at=read_moment(task.get("created_at")),
        finished_at=finished_at(response, task),
    )


def id_of(item: object) -> str | None:
    """Return the id of a task object of the Tasks API; None when it has none."""
    if not isinstance(item, dict):
        return None
    task = _unwrapped(item)
    try:
        return _read_id(_either(task, "id", "task_id"), "id")
    except Unreadable:
        return None


def in_hand(result: Result) -> Result | None:
    """Return a given-up task's result as a success when it holds what the customer wants.

    None when it holds an error or no result, or when its progress is below 100 %: upstream deletes preview
    pictures later.
    """
    response = _object(result.response)
    verdict = judge(response, {})
    progress = result.progress if verdict.progress is None else verdict.progress
    if not verdict.has_result or verdict.error or response.get("success") is False or result.error:
        return None
    if progress is not None and progress < 100:
        return None
    key = _key(SUCCEEDED, result.progress, json.dumps(response, sort_keys=True).encode())
    return replace(result, status=SUCCEEDED, key=key)


def no_result_yet(task_id: str) -> Result:
    """Return an empty result of a running task.

    It outranks any progress, so that it counts as news only once.
    """
    return Result(task_id, PENDING, None, None, None, key=_key(PENDING, 100.0, b""))


def clean_text(value: object, limit: int | None = MAX_ID_LENGTH) -> str | None:
    """Return `value` if it is a text of 1 to `limit` characters that every database can store, else None."""
    if not isinstance(value, str) or not value or (limit is not None and len(value) > limit):
        return None
    return value if is_storable(value) else None


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can store the text: it has no NUL and no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _object(value: object) -> dict[str, Any]:
    """Return an object, also when it is encoded in a JSON string; {} for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_json(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _masked_object(task: Mapping[str, Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    # Parse an object in a JSON string first: its escapes could hide a token from the mask.
    if isinstance(given.get(name), str):
        masked: dict[str, Any] = mask_tokens_within(_object(given[name]))
        return masked
    return _object(task.get(name))


def _kept_of(request: dict[str, Any]) -> str | None:
    if not request:
        return None
    whole = dump(request)
    return whole if len(whole) <= LONGEST_TEXT else dump(bounded(request))


def _unwrapped(told: dict[str, Any]) -> dict[str, Any]:
    task = told.get("task")
    if not isinstance(task, dict):
        return told
    is_named = _either(told, "id", "task_id") is not None and _either(task, "id", "task_id") is None
    return told if is_named else task


def _is_its_own_response(task: Mapping[str, Any]) -> bool:
    """Tell whether an item is itself the response. Three services send such items."""
    if "response" in task or "request" in task or task.keys() <= _AROUND:
        return False
    # One of the three services sends `created_at`, and then always a status.
    return "created_at" not in task or isinstance(_either(task, "status", "state"), str)


def _either(told: Mapping[str, Any], name: str, other: str) -> Any:
    value = told.get(name)
    return told.get(other) if value is None else value


def _read_body(
    body: bytes, headers: Iterable[tuple[str, str]], largest: int
) -> tuple[bytes, str, dict[str, Any]]:
    """Return a body as decompressed bytes, as text and as an object."""
    try:
        text = _decode(body)
        return body, text, _parse_object(text)
    except Unreadable:
        content = decoded(body, headers, largest) if body.strip() else body
        if content is body:
            raise
    text = _decode(content)
    return content, text, _parse_object(text)


def _decode(body: bytes) -> str:
    if not body.strip():
        raise Unreadable("empty", "The body is empty.")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("bad_utf8", "The body is not UTF-8.") from None


def _parse_object(text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except json.JSONDecodeError as problem:
        raise Unreadable("bad_json", f"The body is not JSON (line {problem.lineno}).") from None
    if not isinstance(value, dict):
        raise Unreadable("not_an_object", "The body is not a JSON object.")
    return value


def _read_id(value: object, name: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 10**MAX_ID_LENGTH else "9" * (MAX_ID_LENGTH + 1)
    if not isinstance(value, str) or not value:
        raise Unreadable("no_task_id", f"The body has no {name}.")
    if len(value) > MAX_ID_LENGTH:
        raise Unreadable("bad_task_id", f"The {name} is longer than {MAX_ID_LENGTH} characters.")
    if not is_storable(value):
        raise Unreadable("bad_task_id", f"The {name} holds a NUL or a lone surrogate.")
    if mask_tokens(value) != value:  # an id is shown everywhere, and the token with it
        raise Unreadable("bad_task_id", f"The {name} holds a callback URL.")
    return value


def _error_of(response: Mapping[str, Any], verdict: Verdict) -> str | None:
    if verdict.status != FAILED:
        return None
    error = verdict.error
    told = error if isinstance(error, dict) else {"code": None, "message": error} if error else None
    if told is None:
        # Two services send the error's fields without an `error` object around them.
        words = _either(response, "message", "detail")
        told = {"code": _either(response, "code", "status"), "message": words} if words else None
    if told is None:
        return None
    text = dump(told)
    if len(text) <= _LONGEST_ERROR:
        return text
    # The response holds the whole error, so store only the beginning here.
    parts = {name: told.get(name) for name in ("code", "message")}
    return dump({name: _beginning(part) for name, part in parts.items()})


def _beginning(part: object) -> str | None:
    if part is None:
        return None
    text = part if isinstance(part, str) else dump(part)
    return text if len(text) <= _LONGEST_ERROR_PART else f"{text[:_LONGEST_ERROR_PART]}…"


def _key(status: str, progress: float | None, content: bytes) -> bytes:
    # The big-endian bytes of doubles sort like the numbers, as long as none is negative.
    return bytes([_RANKS[status]]) + struct.pack(">d", progress or 0.0) + hashlib.sha256(content).digest()
