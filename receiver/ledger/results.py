"""What upstream's bytes say about a task: pure, and in one place.

The rules are upstream's own ("When is a task finished?" in its published clients). Everything read here
may be forged or broken, so every type is checked before it is believed.
"""

import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.ledger.clock import from_unix
from receiver.ledger.redact import mask_tokens, mask_tokens_within, may_hold_token

PENDING, FAILED, SUCCEEDED, EXPIRED = "pending", "failed", "succeeded", "expired"
FINAL = (FAILED, SUCCEEDED)
STATUSES = (PENDING, FAILED, SUCCEEDED, EXPIRED)

MAX_ID_LENGTH = 200
_MAX_DEPTH = 64
# An empty object of 2 bytes takes 64 in memory: without a bound an answer would take far more than its size.
MAX_VALUES = 500_000
_LONGEST_ERROR, _LONGEST_ERROR_PART = 4000, 1000  # characters
_RANKS = {PENDING: 0, FAILED: 1, SUCCEEDED: 2}
_SUCCESS_WORDS = frozenset({"succeed", "succeeded", "success", "completed", "complete", "finished"})
_FAILURE_WORDS = frozenset({"failed", "failure", "error", "cancelled", "canceled", "rejected"})
_RESULT_LINKS = ("image_url", "raw_image_url", "video_url")
_RESULT_LISTS = ("image_urls", "sub_image_urls", "video_urls", "descriptions", "prompts")
_PERCENTAGE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,20})?) ?%?")


class Unreadable(ValueError):
    """A body that is not a result. `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Result:
    """What one callback or one look-up says about one task.

    `response`, `error` and `request` are strict JSON texts. `key` orders the results of one witness bytewise:
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


def read_callback(body: bytes) -> Result:
    """Read a callback's body. Raises Unreadable when it is not a result of some task."""
    text = _decode(body)
    response = _parse_object(text)
    task_id = _read_id(response.get("task_id"), "task_id")
    if may_hold_token(text):
        response = mask_tokens_within(response)
    status, progress = judge(response, {})
    return Result(
        task_id=task_id,
        status=status,
        progress=progress,
        response=_dump(response),
        error=_error_of(response, status),
        key=_key(status, progress, body),
        trace_id=clean_text(response.get("trace_id")),
    )


def read_item(item: object) -> Result:
    """Read a task object as the Tasks API returns it. Raises Unreadable when it is none."""
    if not isinstance(item, dict):
        raise Unreadable("not_an_object", "The item is not a JSON object.")
    task_id = _read_id(item.get("id"), "id")
    task: dict[str, Any] = mask_tokens_within(item)
    response, request = _object(task.get("response")), _object(task.get("request"))
    status, progress = judge(response, task)
    dumped = _dump(response) if response else None
    return Result(
        task_id=task_id,
        status=status,
        progress=progress,
        response=dumped,
        error=_error_of(response, status),
        key=_key(status, progress, json.dumps(response, sort_keys=True).encode()),
        type=clean_text(task.get("type")),
        trace_id=clean_text(task.get("trace_id")) or clean_text(response.get("trace_id")),
        request=_dump(request) if request else None,
        prompt=clean_text(request.get("prompt"), limit=None),
        submitted_at=from_unix(task.get("created_at")),
        finished_at=from_unix(task.get("finished_at")),
    )


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


def judge(response: dict[str, Any], item: dict[str, Any]) -> tuple[str, float | None]:
    """Decide (status, progress) of a task from its response and the Tasks API's item around it.

    The steps are those of upstream's published clients, in their order; {} stands for what is missing.
    """
    progress = read_progress(response.get("progress"))
    finished = from_unix(item.get("finished_at")) is not None
    success, error = response.get("success"), response.get("error")
    status = PENDING
    if word := _status_word(item.get("state"), response.get("state"), response.get("status")):
        status = SUCCEEDED if word in _SUCCESS_WORDS else FAILED if word in _FAILURE_WORDS else PENDING
    elif progress is not None and progress < 100:
        status = PENDING
    elif success is False and (finished or (isinstance(error, dict) and "code" in error)):
        status = FAILED
    elif success is True and (finished or _has_result(response)):
        status = SUCCEEDED
    return status, progress


def read_progress(value: object) -> float | None:
    """Read a progress of 0 to 100 ("75%" is 75, 0.75 is 0.75); None for anything else."""
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value.strip())):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        return None
    return float(value) + 0.0  # -0.0 becomes 0.0: the key's bytes must not tell them apart


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


def _status_word(*candidates: object) -> str | None:
    words = (word.strip().lower() for word in candidates if isinstance(word, str))
    return next((word for word in words if word), None)


def _has_result(response: dict[str, Any]) -> bool:
    links = (response.get(name) for name in _RESULT_LINKS)
    lists = (response.get(name) for name in _RESULT_LISTS)
    return any(isinstance(link, str) and link for link in links) or any(
        isinstance(entries, list) and entries for entries in lists
    )


def _error_of(response: dict[str, Any], status: str) -> str | None:
    error = response.get("error")
    if status != FAILED or not error:
        return None
    told = error if isinstance(error, dict) else {"code": None, "message": error}
    text = _dump(told)
    if len(text) <= _LONGEST_ERROR:
        return text
    # The response holds all of it. Twice would cost its size on disk once more.
    parts = {name: told.get(name) for name in ("code", "message")}
    return _dump({name: _beginning(part) for name, part in parts.items()})


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
