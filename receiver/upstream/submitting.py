"""What a submission asks for, what is sent for it, and what upstream's answer means. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from receiver.upstream.results import LONGEST_MODE, clean_text, dump, id_of, parse_json

# Codes of errors that upstream answers at once, with the status that it gives them.
_STATUSES = {
    **dict.fromkeys(("bad_request", "invalid_request", "api_not_implemented"), 400),
    **dict.fromkeys(("invalid_token", "token_expired", "token_mismatched", "no_token"), 401),
    **dict.fromkeys(("used_up", "insufficient_balance", "disabled", "forbidden"), 403),
    **dict.fromkeys(("not_found", "no_task", "no_api"), 404),
    "request_too_large": 413,
    "too_many_requests": 429,
    "timeout": 504,
}
# Without a code: a proxy between has given up, and upstream may go on.
_PASSING = (408, 409, 499)
# With these codes upstream may have begun, whatever the status.
_PASSING_CODES = ("api_error", "unknown", "busy", "timeout", "connection_reset")


class Wants(Enum):
    """What the caller waits for."""

    TASK = "task"  # the task's id, at once
    RESULT = "result"  # the result, as long as it takes
    LINES = "lines"  # the progress and the result, line by line


class Fate(Enum):
    """What became of a submission, by upstream's answer."""

    TAKEN = "taken"
    REFUSED = "refused"  # nothing was taken
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Order:
    """A submission, as far as we understand it."""

    body: Mapping[str, Any]
    wants: Wants
    callback_url: object = None
    trace_id: str | None = None

    @property
    def mode(self) -> str | None:
        """Return the mode, as upstream will tell it of the task: how long that takes depends on it."""
        return clean_text(self.body.get("mode"), limit=LONGEST_MODE)


def read_order(body: bytes, accept: str, *, streams: bool) -> Order | None:
    """Read a submission; None for one that is relayed as it is: no JSON object, or one that asks for events.

    `streams`: the operation answers in lines where the caller accepts them.
    """
    try:
        given = parse_json(body.decode("utf-8-sig"))
    except ValueError:
        return None
    if not isinstance(given, dict):
        return None
    callback_url = given.get("callback_url") or None
    if callback_url is not None or given.get("async") is True:
        wants = Wants.TASK
    elif given.get("stream") is True:
        return None
    else:
        wants = Wants.LINES if streams and "application/x-ndjson" in accept.lower() else Wants.RESULT
    return Order(given, wants, callback_url, clean_text(given.get("trace_id")))


def canonical(order: Order) -> bytes:
    """Return what two submissions of the same content share."""
    return json.dumps([order.body, order.wants.value], sort_keys=True, separators=(",", ":")).encode()


def to_send(order: Order, callback_url: str | None, trace_id: str) -> bytes:
    """Return the body that upstream gets.

    A synchronous one is submitted with a callback URL too: upstream may keep no record of others. Lines come
    only without one.
    """
    body = {**order.body, "trace_id": trace_id}
    if order.wants is not Wants.LINES:
        body["callback_url"] = callback_url
    if order.wants is Wants.RESULT:
        body.pop("async", None)
    return dump(body).encode()


def read_answer(status: int, body: bytes) -> tuple[Fate, str | None]:
    """Return what became of a submission by upstream's answer, and its task's id if that is told.

    An error's code decides, then the status. A task's id beside an error is of no use: nobody is told it
    elsewhere, and nothing was taken.
    """
    try:
        told = parse_json(body.decode("utf-8-sig"))
    except ValueError:
        told = None
    is_error = status >= 300 or (isinstance(told, dict) and told.get("success") is False)
    if is_error:
        return _fate_of_error(status, _code_of(told)), None
    if not isinstance(told, dict):
        return Fate.UNCLEAR, None
    task_id = id_of({"id": told.get("task_id")}) or id_of(told.get("task")) or id_of(told)
    return (Fate.UNCLEAR if task_id is None else Fate.TAKEN), task_id


def _fate_of_error(status: int, code: str | None) -> Fate:
    if code in _PASSING_CODES:
        return Fate.UNCLEAR
    if code in _STATUSES:
        return Fate.REFUSED
    return Fate.UNCLEAR if status >= 500 or status in _PASSING else Fate.REFUSED


def _code_of(told: Any) -> str | None:
    error = told.get("error") if isinstance(told, Mapping) else None
    code = error.get("code") if isinstance(error, dict) else None
    return None if code is None else str(code)


def as_answer(response: str | None, task_id: str, trace_id: str | None) -> dict[str, Any]:
    """Return a result in the form of upstream's synchronous answers."""
    told = json.loads(response) if response else {}
    told.setdefault("task_id", task_id)
    if trace_id is not None:
        told.setdefault("trace_id", trace_id)
    return dict(told)


def status_of(answer: Mapping[str, Any], failed: bool) -> int:
    """Return the HTTP status of a synchronous answer: upstream gives failures one, by their code."""
    if not failed:
        return 200
    return _STATUSES.get(str(_code_of(answer)), 500)
