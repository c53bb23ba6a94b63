"""The Tasks API: answers to look-up calls, and their faults."""

import gzip
import json
import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from .answers import Answer, error_answer, json_answer, traced
from .catalogue import MIDJOURNEY, Service
from .faults import draw_fault, fault_answer
from .options import ACCOUNT_ERRORS, FAULTS, Options
from .questions import answer_lookup, asked
from .records import Records
from .tasks import Json

# How many calls are kept. Older ones are dropped, but still counted.
MAX_CALLS = 5_000
NOTHING_KNOWN = b'{"items": [], "count": 0}'


@dataclass(frozen=True)
class Call:
    """One call as received. `body` is None if it was not JSON. Header names are in lower case."""

    at: float
    headers: dict[str, str]
    body: Any
    method: str = "POST"
    path: str = "/midjourney/tasks"
    service: Service = MIDJOURNEY


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

    def forget_scripted(self) -> None:
        """Drop the queued answers that no call has had."""
        with self._lock:
            self._scripted.clear()

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

    def answer(
        self, headers: Mapping[str, str], raw: bytes, refusal: Answer | None, service: Service = MIDJOURNEY
    ) -> Answer:
        """Answer one call, as slowly as upstream would. `refusal` is the error for its credentials, if any."""
        with self._flight():
            path = f"/{service.name}/tasks"
            call = Call(time.time(), dict(headers), parsed(raw), path=path, service=service)
            number, scripted = self._receive(call)
            self._stopping.wait(self._options.latency)
            answer = scripted or traced(refusal or self._faulty(number, call), str(uuid.uuid4()))
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
        ids, trace_ids = asked(call.body)
        self._records.count_lookups({*ids, *self._records.ids_of_traces(trace_ids)})
        with self._lock:
            self.calls.append(call)
            self._calls += 1
            self._ids += len(ids) + len(trace_ids)
            self._max_ids = max(self._max_ids, len(ids) + len(trace_ids))
            return self._calls, self._scripted.popleft() if self._scripted else None

    def _faulty(self, number: int, call: Call) -> Answer:
        fault, trace_id = draw_fault(self._options, FAULTS, "lookup", number)
        if fault in ("rate_429", "rate_500", "rate_502", "rate_bare"):
            return fault_answer(fault, trace_id, self._options.retry_after)
        found = answer_lookup(self._records, self._options, call.service, call.body)
        answer = self._shaped(number, found)
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


def parsed(raw: bytes) -> Any:
    """Return what the body says; None if it is not JSON."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
