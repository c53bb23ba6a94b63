"""The Tasks API: answers to look-up calls, and their faults."""

import email.utils
import gzip
import hashlib
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .answers import JSON_HEADERS, Answer, bad_request, error_answer, json_answer
from .options import ACCOUNT_ERRORS, FAULTS, Options
from .records import Records
from .tasks import Json, draw_uuid

DEFAULT_LIMIT = 12
# How many calls are kept. Older ones are dropped, but still counted.
MAX_CALLS = 5_000
NOTHING_KNOWN = b'{"items": [], "count": 0}'
BAD_GATEWAY = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n"
    b"<body><center><h1>502 Bad Gateway</h1></center></body>\r\n</html>\r\n"
)


@dataclass(frozen=True)
class Call:
    """One look-up call as received. `body` is None if it was not JSON. Header names are in lower case."""

    at: float
    headers: dict[str, str]
    body: Any


class Lookups:
    """Answers look-up calls and counts them."""

    def __init__(self, records: Records, options: Options, stopping: threading.Event) -> None:
        self.calls: deque[Call] = deque(maxlen=MAX_CALLS)
        self._records, self._options, self._stopping = records, options, stopping
        self._scripted: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._answered: Counter[str] = Counter()
        self._calls = self._ids = self._max_ids = self._in_flight = self._max_in_flight = 0

    def respond_next(self, answer: Answer, times: int) -> None:
        """Queue an answer for the next calls, whatever they ask."""
        with self._lock:
            self._scripted.extend([answer] * times)

    def stats(self) -> Json:
        """Return the counts of look-up calls."""
        with self._lock:
            return {
                "lookup_calls": self._calls,
                "lookup_ids": self._ids,
                "lookup_statuses": dict(self._answered),
                "max_in_flight": self._max_in_flight,
                "max_ids": self._max_ids,
            }

    def answer(self, headers: Mapping[str, str], raw: bytes, refusal: Answer | None) -> Answer:
        """Answer one call, as slowly as upstream would. `refusal` is the error for its credentials, if any."""
        with self._flight():
            body = _parsed(raw)
            number, scripted = self._receive(Call(time.time(), dict(headers), body))
            self._stopping.wait(self._options.latency)
            answer = scripted or refusal or self._faulty(number, body)
            if answer.fate == "hang":
                self._stopping.wait(self._options.hang_seconds)
        with self._lock:
            self._answered[answer.label] += 1
        return answer

    @contextmanager
    def _flight(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self._max_in_flight = max(self._max_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _receive(self, call: Call) -> tuple[int, Answer | None]:
        """Count the call, even if it is about to fail."""
        ids, trace_ids = _asked(call.body)
        self._records.count_lookups({*ids, *self._records.ids_of_traces(trace_ids)})
        with self._lock:
            self.calls.append(call)
            self._calls += 1
            self._ids += len(ids) + len(trace_ids)
            self._max_ids = max(self._max_ids, len(ids) + len(trace_ids))
            return self._calls, self._scripted.popleft() if self._scripted else None

    def _faulty(self, number: int, body: Any) -> Answer:
        fault, trace_id = _draw_fault(self._options, number)
        if fault in ("rate_429", "rate_500", "rate_502", "rate_bare"):
            return _fault_answer(fault, trace_id, self._options.retry_after)
        answer = self._shaped(number, answer_lookup(self._records, self._options, body))
        if fault == "rate_cut":
            return replace(answer, fate="cut")
        return replace(answer, fate="hang") if fault == "rate_hang" else answer

    def _shaped(self, number: int, answer: Answer) -> Answer:
        """Return an answer in the form of the service, as services differ."""
        options, rng = self._options, random.Random(f"{self._options.seed}:shape:{number}")
        is_packed, is_empty = rng.random() < options.packed, rng.random() < options.empty_unknown
        if answer.body == NOTHING_KNOWN and is_empty:
            answer = json_answer({})
        if 0 < options.most_bytes < len(answer.body):
            answer = error_answer(413, "request_too_large", "Ask for less at once.")
        if not is_packed:
            return answer
        headers = {**answer.headers, "Content-Encoding": "gzip"}
        return replace(answer, body=gzip.compress(answer.body), headers=headers)


def account_error(options: Options) -> Answer | None:
    """Return the error for the whole account, if one is set."""
    if (code := options.account_error) is None:
        return None
    return error_answer(ACCOUNT_ERRORS[code], code, f"The account cannot be served: {code}.")


def answer_lookup(records: Records, options: Options, body: Any) -> Answer:
    """Answer `retrieve` and `retrieve_batch` without faults."""
    action = body.get("action", "retrieve") if isinstance(body, dict) else None
    if action not in ("retrieve", "retrieve_batch"):
        return bad_request(f"The action {action!r} is not supported.")
    if problem := _problem(body):
        return bad_request(problem)
    ids, trace_ids = _asked(body)
    if poisoned := sorted({*ids} & {*options.poison}):
        return error_answer(400, options.poison_code, f"Invalid id: {poisoned[0]}")
    if action == "retrieve":
        if not ids and not trace_ids:
            return bad_request("Either `id` or `trace_id` is required.")
        # A trace id may belong to several tasks: take the newest.
        found = records.find(ids or records.ids_of_traces(trace_ids)[-1:])
        return json_answer(found[0] if found else {})
    items = _batch(records, options, body)
    return json_answer({"items": items, "count": len(items)})


def _batch(records: Records, options: Options, body: Json) -> list[Json]:
    offset, limit = body.get("offset", 0), body.get("limit", DEFAULT_LIMIT)
    if body.get("ids") is None and body.get("trace_ids") is None:
        matches = {name: body[name] for name in ("application_id", "type") if body.get(name) is not None}
        since, until = body.get("created_at_min"), body.get("created_at_max")
        return records.newest(
            matches,
            float("-inf") if since is None else since,
            float("inf") if until is None else until,
            offset,
            limit,
        )
    ids, trace_ids = _asked(body)
    # An order of upstream's own, the same for every page of one batch.
    wanted = sorted(
        {*ids, *records.ids_of_traces(trace_ids)}, key=lambda task_id: _rank(options.seed, task_id)
    )
    return records.find(wanted)[offset : offset + limit]


def _rank(seed: int, task_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{task_id}".encode(errors="replace"), digest_size=8).digest()


def _asked(body: Any) -> tuple[list[str], list[str]]:
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


def _draw_fault(options: Options, number: int) -> tuple[str | None, str]:
    rng = random.Random(f"{options.seed}:lookup:{number}")
    trace_id, drawn = draw_uuid(rng), rng.random()
    for name in FAULTS:
        drawn -= getattr(options, name)
        if drawn < 0:
            return name, trace_id
    return None, trace_id


def _fault_answer(fault: str, trace_id: str, retry_after: float | str) -> Answer:
    if fault == "rate_429":
        content = {
            "error": {"code": "too_many_requests", "message": "You have exceeded the rate limit."},
            "trace_id": trace_id,
        }
        return replace(json_answer(content, 429), headers=JSON_HEADERS | {"Retry-After": _wait(retry_after)})
    if fault == "rate_502":
        return Answer(502, BAD_GATEWAY, {"Content-Type": "text/html"})
    if fault == "rate_bare":
        return json_answer({"error": "upstream connect error", "trace_id": None}, 500)
    return error_answer(500, "api_error", "fetch failed", trace_id)


def _wait(retry_after: float | str) -> str:
    if retry_after == "date":
        # HTTP dates have whole seconds: add one, so that the date is not in the past at once.
        return email.utils.formatdate(time.time() + 2, usegmt=True)
    return f"{retry_after:g}"


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
