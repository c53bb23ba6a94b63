"""Looks for submissions whose answer is lost: in the ledger each second, at upstream every few seconds.

Each look has a thread of its own, which ends when nothing is lost any more. So an upstream that hangs does
not keep a callback from being found.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flask import Flask, current_app

from receiver.clock import utcnow
from receiver.ledger.engine.errors import describe
from receiver.ledger.models import Submission
from receiver.ledger.pauses import current_pause
from receiver.ledger.unclear import accepted_tasks, give_to_submissions, tasks_by_trace
from receiver.upstream.client import Upstream, UpstreamError
from receiver.upstream.services import SERVICES
from receiver.upstream.traces import MOST_TRACES, find_traces
from receiver.web.offload import offload

log = logging.getLogger(__name__)

FIND_WITHIN_SECONDS = 20.0
_LOOK_EVERY_SECONDS = 1.0
_ASK_EVERY_SECONDS = 4.0  # upstream advises less than one call a second, and the reconciler asks too


@dataclass(eq=False, slots=True)
class _Lost:
    submission: Submission
    task_id: str | None = None
    is_found: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _Way:
    """A way to look for submissions, and how often. `is_looking`: its thread runs."""

    look: Callable[[Sequence[Submission]], dict[int, str]]
    every: float
    is_looking: bool = False


class Finder:
    """The lost submissions of this process that callers wait for. Safe to share between threads."""

    def __init__(self, upstream: Upstream, look_every: float = _LOOK_EVERY_SECONDS) -> None:
        self._upstream = upstream
        self._ways = {
            "ledger": _Way(lambda some: offload(_tasks_in_ledger, some), look_every),
            "upstream": _Way(self._ask, look_every * _ASK_EVERY_SECONDS / _LOOK_EVERY_SECONDS),
        }
        self._lost: set[_Lost] = set()
        self._lock = threading.Lock()

    def find(self, submission: Submission, seconds: float = FIND_WITHIN_SECONDS) -> str | None:
        """Return the task of a submission, or None if it is not found within so many seconds."""
        lost = _Lost(submission)
        with self._lock:
            self._lost.add(lost)
            for name, way in self._ways.items():
                if not way.is_looking:
                    way.is_looking = True
                    threading.Thread(
                        target=self._look_while_lost, args=(way,), name=name, daemon=True
                    ).start()
        try:
            lost.is_found.wait(seconds)
        finally:
            with self._lock:
                self._lost.discard(lost)
        return lost.task_id

    def _look_while_lost(self, way: _Way) -> None:
        while lost := self._all(way):
            try:
                found = way.look([one.submission for one in lost])
            except Exception as problem:  # noqa: BLE001 - the next look may succeed
                log.error("Lost submissions cannot be looked for: %s", describe(problem))
                found = {}
            for one in lost:
                if (task_id := found.get(one.submission.id)) is not None:
                    one.task_id = task_id
                    one.is_found.set()
            time.sleep(way.every)

    def _all(self, way: _Way) -> list[_Lost]:
        with self._lock:
            lost = [one for one in self._lost if one.task_id is None]
            way.is_looking = bool(lost)
            return lost

    def _ask(self, some: Sequence[Submission]) -> dict[int, str]:
        found: dict[int, str] = {}
        for service, lost in by_service(some).items():
            if offload(current_pause, utcnow(), service) is not None:
                continue
            sent_at = {one.trace_id: one.sent_at for one in reversed(lost)}  # of one trace id the earliest
            try:
                traces = find_traces(self._upstream, SERVICES[service], sent_at)
            except UpstreamError as problem:
                log.warning("Upstream cannot be asked about lost submissions: %s", problem)
                continue
            found |= offload(give_to_submissions, lost, traces)
        return found


def _tasks_in_ledger(some: Sequence[Submission]) -> dict[int, str]:
    accepted = accepted_tasks(some)
    return accepted | tasks_by_trace([one for one in some if one.id not in accepted])


def by_service(some: Sequence[Submission]) -> dict[str, list[Submission]]:
    """Return the oldest MOST_TRACES submissions of each service."""
    asked: dict[str, list[Submission]] = defaultdict(list)
    for one in sorted(some, key=lambda one: one.id):
        if one.service in SERVICES and len(asked[one.service]) < MOST_TRACES:
            asked[one.service].append(one)
    return asked


def current_finder() -> Finder:
    """Return the lost submissions of the application that serves the current request."""
    return finder_of(current_app)


def finder_of(app: Flask) -> Finder:
    """Return the lost submissions of an application."""
    finder: Finder = app.extensions["backstop_finder"]
    return finder
