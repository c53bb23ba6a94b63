"""What upstream's bytes say about a task: pure, and in one place.

Everything read here may be forged or broken, so every type is checked before it is believed. `verdict` tells
whether a task is finished.
"""

import contextlib
import hashlib
import json
import math
import struct
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from receiver.ledger import verdict
from receiver.ledger.redact import mask_tokens, mask_tokens_within, may_hold_token

STATUSES = PENDING, FAILED, SUCCEEDED, EXPIRED = verdict.STATUSES
FINAL = (FAILED, SUCCEEDED)

MAX_ID_LENGTH = 200
_MAX_DEPTH = 64
# An empty object of 2 bytes takes 64 in memory: without a bound an answer would take far more than its size.
MAX_VALUES = 500_000
_LONGEST_REQUEST = 65_536
_LONGEST_TEXTS_OF_REQUEST = (16_384, 1_024, 128)  # the next where that is still too long
_LONGEST_ERROR, _LONGEST_ERROR_PART = 4000, 1000  # characters
_RANKS = {PENDING: 0, FAILED: 1, SUCCEEDED: 2}


class Unreadable(ValueError):
    """A body that is not a result. `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Result:
    """What one callback or one look-up says about one task.

    `response`, `error` and `request` are strict JSON texts. `has_result_in_hand`: a look-up tells
    of a running task, and yet there is a result and no error. `key` orders one witness's results bytewise:
    by status, then progress, then content, so that the greatest is the same whatever order they came in.
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
    prompt: str | None = None
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    has_result_in_hand: bool = False


def read_callback(body: bytes) -> Result:
    """Read a callback's body. Raises Unreadable when it is not a result of some task."""
    text = _decode(body)
    response = _parse_object(text)
    if "task_id" not in response and isinstance(response.get("task"), dict):
        return read_item(response)
    task_id = _read_id(response.get("task_id"), "task_id")
    if may_hold_token(text):
        response = mask_tokens_within(response)
    told = verdict.told_by(response, is_item=False)
    status = verdict.judge(told)
    return Result(
        task_id=task_id,
        status=status,
        progress=told.progress,
        response=_dump(response),
        error=_error_of(told, status),
        key=_key(status, told.progress, body),
        trace_id=clean_text(response.get("trace_id")),
    )


def read_item(item: object) -> Result:
    """Read a task object as the Tasks API returns it. Raises Unreadable when it is none."""
    if not isinstance(item, dict):
        raise Unreadable("not_an_object", "The item is not a JSON object.")
    task = _object(item.get("task")) or item
    task_id = _read_id(task.get("id") or task.get("task_id"), "id")
    task = mask_tokens_within(_with_parsed_response(task))
    told, request = verdict.told_by(task, is_item=True), _object(task.get("request"))
    response, status = told.response, verdict.judge(told)
    return Result(
        task_id=task_id,
        status=status,
        progress=told.progress,
        response=_dump(response) if response else None,
        error=_error_of(told, status),
        key=_key(status, told.progress, json.dumps(response, sort_keys=True).encode()),
        has_result_in_hand=status == PENDING and not told.error and told.has_result,
        type=clean_text(task.get("type")),
        trace_id=clean_text(task.get("trace_id")) or clean_text(response.get("trace_id")),
        request=_dump_request(request) if request else None,
        prompt=clean_text(request.get("prompt"), limit=None),
        submitted_at=verdict.read_moment(task.get("created_at")),
        finished_at=told.finished_at,
    )


def taken_as_succeeded(result: Result) -> Result:
    """Return a look-up's result as that of a success: nothing better is to come."""
    return replace(result, status=SUCCEEDED, key=bytes([_RANKS[SUCCEEDED]]) + result.key[1:])


def no_result_yet(task_id: str) -> Result:
    """Return a result of a running task that tells nothing. It outranks all progress: it counts once."""
    return Result(task_id, PENDING, None, None, None, key=_key(PENDING, 100.0, b""))


def parse_json(text: str) -> Any:
    """Parse JSON as upstream's clients do; what strict JSON cannot hold (NaN, 1e999) becomes None.

    Raises ValueError, also for what is nested too deeply to be handled safely.
    """
    # Each value but the first of a list or an object stands behind a bracket, a brace or a comma.
    if sum(map(text.count, "[{,")) > MAX_VALUES:
        raise Unreadable("too_many_values", f"The body holds more than {MAX_VALUES:,} values.")
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise Unreadable("nested_too_deeply", "The body is nested too deeply.") from None
    # What opens no more brackets than that cannot be nested deeper.
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth_exceeds(value, _MAX_DEPTH):
        raise Unreadable("nested_too_deeply", f"The body is nested more than {_MAX_DEPTH} levels deep.")
    return value


def clean_text(value: object, limit: int | None = MAX_ID_LENGTH) -> str | None:
    """Return `value` if it is a text of 1 to `limit` characters that every database can hold, else None."""
    if not isinstance(value, str) or not value or (limit is not None and len(value) > limit):
        return None
    return value if is_storable(value) else None


def is_storable(text: str) -> bool:
    """Tell whether PostgreSQL can hold the text: no NUL, no lone surrogate."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _with_parsed_response(task: dict[str, Any]) -> dict[str, Any]:
    response = task.get("response")
    if isinstance(response, str):
        with contextlib.suppress(ValueError):
            return {**task, "response": parse_json(response)}
    return task


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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
    if mask_tokens(value) != value:  # it is shown everywhere, and would show the token
        raise Unreadable("bad_task_id", f"The {name} holds a callback URL.")
    return value


def _error_of(told: verdict.Told, status: str) -> str | None:
    error = told.error
    if status != FAILED:
        return None
    if not error:
        # Some services tell of it beside the result's place, with a number or a word for a code.
        code, message = told.response.get("code"), told.response.get("message") or told.response.get("detail")
        if not message:
            return None
        error = {"code": code if code is not None else told.response.get("status"), "message": message}
    parts = error if isinstance(error, dict) else {"code": None, "message": error}
    text = _dump(parts)
    if len(text) <= _LONGEST_ERROR:
        return text
    # The response holds all of it. Twice would cost its size on disk once more.
    return _dump({name: _beginning(parts.get(name)) for name in ("code", "message")})


def _beginning(part: object) -> str | None:
    if part is None:
        return None
    text = part if isinstance(part, str) else _dump(part)
    return text if len(text) <= _LONGEST_ERROR_PART else f"{text[:_LONGEST_ERROR_PART]}…"


def _key(status: str, progress: float | None, content: bytes) -> bytes:
    # A double's big-endian bytes sort as the numbers do while none is negative.
    return bytes([_RANKS[status]]) + struct.pack(">d", progress or 0.0) + hashlib.sha256(content).digest()


def _dump(value: Any) -> str:
    # As short as it came: an escape takes three times the bytes of a letter that is not ASCII. A NUL stays an
    # escape. A lone surrogate becomes one: the error handler writes it as JSON does. No database holds them.
    return _ENCODER.encode(value).encode(errors="backslashreplace").decode()


def _dump_request(request: dict[str, Any]) -> str | None:
    """Return a request as JSON of a bounded size: it may hold pictures as base64, which are no results."""
    for longest in _LONGEST_TEXTS_OF_REQUEST:
        text = _dump(_with_short_texts(request, longest))
        if len(text) <= _LONGEST_REQUEST:
            return text
    return None


def _with_short_texts(value: Any, longest: int) -> Any:
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:100]}… ({len(value):,} characters)"
    if isinstance(value, list):
        return [_with_short_texts(member, longest) for member in value]
    if isinstance(value, dict):
        return {name[:longest]: _with_short_texts(member, longest) for name, member in value.items()}
    return value


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _whole(text: str) -> int | float | None:
    # int() refuses more than 4,300 digits; such a number is nobody's id or progress.
    return int(text) if len(text) <= 4000 else None


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
        if not level:
            return False
    return True


# Made once: that takes as long as to read or write a callback's body.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
