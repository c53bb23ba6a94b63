"""Upstream under the clock of a world: it works, calls back once, and answers look-ups, rightly or not."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from receiver.clock import to_unix
from receiver.upstream.client import CALL_WITHIN_SECONDS, Upstream, UpstreamError
from tests.simulation.clock import Process, WorldClock
from tests.simulation.faults import Faults
from tests.simulation.trace import Trace
from tests.simulation.works import Work
from tests.upstream.answers import Answer, error_answer, json_answer
from tests.upstream.options import ACCOUNT_ERRORS

_LEASE_SECONDS = 120  # the default
DEFAULT_LIMIT = 12  # of CONTRACT's retrieve_batch
_CODES = sorted(ACCOUNT_ERRORS)


@dataclass(slots=True)
class Account:
    """What upstream knows, and what it was asked. `forgets_after`: seconds until a record is deleted."""

    clock: WorldClock
    faults: Faults
    trace: Trace
    works: dict[str, Work] = field(default_factory=dict)
    calls: list[tuple[float, str]] = field(default_factory=list)  # when, by which process
    answers: dict[str, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    forgets_after: float = float("inf")
    bad_ids: set[str] = field(default_factory=set)
    in_flight: list[tuple[float, str, frozenset[str]]] = field(default_factory=list)
    asked_twice: list[tuple[str, str]] = field(default_factory=list)  # an id and how

    def unix_now(self) -> float:
        return to_unix(self.clock.true_now())

    def has_forgotten(self, work: Work) -> bool:
        return self.clock.passed - work.begins > self.forgets_after

    def answer(self, question: dict[str, Any], caller: str) -> Answer:
        """Answer a call, as slowly as upstream would."""
        call = (self.clock.passed, caller, frozenset(question.get("ids", ())))
        self._note_twice(call)
        self.calls.append(call[:2])
        self.in_flight.append(call)
        try:
            return self._answer(question)
        finally:
            self.in_flight.remove(call)

    def _note_twice(self, call: tuple[float, str, frozenset[str]]) -> None:
        for at, caller, ids in self.in_flight:
            if call[0] - at < _LEASE_SECONDS / 2:
                told = f"{caller} at {at:.3f} s and {call[1]} at {call[0]:.3f} s"
                self.asked_twice += [(task_id, told) for task_id in sorted(ids & call[2])]

    def _answer(self, question: dict[str, Any]) -> Answer:
        rng, faults, clock = self.faults.rng("upstream"), self.faults, self.clock
        clock.wait(rng.uniform(0.01, 0.3))
        if faults.happens("hangs", clock):
            clock.wait(CALL_WITHIN_SECONDS)
            self._note(question, "error", "no answer")
            raise UpstreamError("no answer from upstream within 30 s", permanent=False)
        answer = self._refusal(question) or self._tasks(question)
        clock.wait(rng.uniform(5, 25) if faults.happens("slow", clock) else rng.uniform(0.01, 0.3))
        if faults.happens("cut", clock):
            answer = Answer(answer.status, answer.body[: len(answer.body) // 2])
        self._note(question, _kind_of(answer), f"{answer.status} {answer.body[:60]!r}")
        return answer

    def _note(self, question: dict[str, Any], kind: str, text: str) -> None:
        ids = question.get("ids", [])
        for task_id in ids:
            self.answers[task_id].append((self.clock.passed, kind))
        if ids:
            self.trace.note(f"upstream answers {len(ids)} id(s): {text}", *ids)

    def _refusal(self, question: dict[str, Any]) -> Answer | None:
        faults, clock = self.faults, self.clock
        if span := faults.lasting("account", clock):
            code = _CODES[int(span.draw * len(_CODES))]
            return error_answer(ACCOUNT_ERRORS[code], code, "The account cannot be served.")
        if faults.lasting("outage", clock) or faults.happens("busy", clock):
            transient: Answer = self._pick(_TRANSIENT)
            return transient
        if faults.lasting("refusals", clock):
            return error_answer(400, "api_of_the_moon", "Nobody knows this code.")
        if faults.lasting("flood", clock) or faults.happens("throttled", clock):
            headers = self._pick(({}, {"Retry-After": "7"}, {"Retry-After": "90"}))
            answer = error_answer(429, "too_many_requests", "Slow down.")
            return Answer(answer.status, answer.body, headers)
        ids = set(question.get("ids", []))
        if (bad := sorted(ids & self.bad_ids)) and clock.passed < faults.calm_at:
            return error_answer(400, "bad_request", f"Invalid id: {bad[0]}")
        if faults.lasting("too_large", clock) and max(len(ids), question.get("limit", 0)) > 5:
            return error_answer(413, "request_too_large", "Ask for less at once.")
        return None

    def _tasks(self, question: dict[str, Any]) -> Answer:
        ids = question.get("ids")
        if (traces := question.get("trace_ids")) is not None:
            ids = [work.id for work in self.works.values() if work.trace_id in traces]
        found = self._listed(question) if ids is None else self._found(ids)
        offset, limit = question.get("offset", 0), question.get("limit", DEFAULT_LIMIT)
        if self.faults.happens("short_pages", self.clock):
            limit = min(limit, 7)
        page = found[offset : offset + limit]
        if not page and self.faults.rng("upstream").random() < 0.3:
            return json_answer({})
        return json_answer({"items": page, "count": len(page)})

    def _listed(self, question: dict[str, Any]) -> list[Any]:
        since, until = question.get("created_at_min", 0), question.get("created_at_max", float("inf"))
        if self.faults.has("ignored_limits"):
            since, until = 0, float("inf")
        works = [
            work
            for work in self.works.values()
            if since <= work.created_at <= until and not self.has_forgotten(work)
        ]
        works.sort(key=lambda work: -work.created_at)
        return [self._item(work) for work in works]

    def _found(self, ids: list[str]) -> list[Any]:
        """Return the items of a batch, in the same order for all of its pages."""
        works = [self.works[task_id] for task_id in dict.fromkeys(ids) if task_id in self.works]
        works = sorted(
            (work for work in works if not self.has_forgotten(work)), key=lambda work: work.id[::-1]
        )
        items: list[Any] = []
        for work in works:
            items.append(self._item(work))
            if self.faults.happens("repeated_items", self.clock):
                items.append(self._item(work))
        if self.faults.happens("broken_items", self.clock):
            items.append(self._pick((None, "task", {}, {"id": 5}, [], {"id": "", "response": {}})))
        if self.faults.happens("foreign_items", self.clock) and self.works:
            items.append(self._pick(list(self.works.values())).item(self.clock.passed))
            items.append(
                {"id": "nobody-asked", "response": {"success": True, "image_url": "https://x/1.png"}}
            )
        return items

    def _item(self, work: Work) -> dict[str, Any]:
        now, is_stale = self.clock.passed, self.faults.happens("stale", self.clock)
        if is_stale and now >= work.shows_at:
            work.stale_at = now
        return work.item(now, is_stale)

    def _pick(self, choices: Any) -> Any:
        return self.faults.rng("upstream").choice(choices)


class Client(Upstream):
    """The product's client of upstream; only its HTTP exchange is the world's."""

    def __init__(self, account: Account, process: Process) -> None:
        self._token = "test-token"
        self._account = account
        self._process = process

    @property
    def clock_ahead(self) -> timedelta | None:
        """How far the world's wall clock is ahead: an answer has told, at least to the first discovery."""
        return self._account.clock.ahead

    def compare_clocks(self) -> timedelta | None:
        """Tell the same; asked for its time alone, upstream always answers."""
        self._is_answered = True
        return self.clock_ahead

    def _post(self, path: str, body: bytes, deadline: float) -> tuple[Any, bytes]:
        answer = self._account.answer(json.loads(body), self._process.name)
        return answer, answer.body


_TRANSIENT = (
    error_answer(500, "api_error", "fetch failed"),
    Answer(502, b"<html>502 Bad Gateway</html>", {"Content-Type": "text/html"}),
    json_answer({"error": "upstream connect error"}, 503),
    error_answer(409, "busy", "try again"),
)


def _kind_of(answer: Answer) -> str:
    return "answer" if answer.status in (200, 400) else "error"
