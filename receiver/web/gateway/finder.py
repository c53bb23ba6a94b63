"""Looks for submissions whose answer is lost: in the ledger each second, at upstream every few seconds.

One thread looks for all of them, and only while there are any.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flask import Flask, current_app

from receiver.ledger import submissions
from receiver.ledger.engine.errors import DATABASE_ERRORS, describe
from receiver.ledger.models import Submission
from receiver.upstream.client import Upstream, UpstreamError
from receiver.upstream.services import SERVICES
from receiver.upstream.traces import find_traces
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


class Finder:
    """The lost submissions of this process that callers wait for. Safe to share between threads."""

    def __init__(self, upstream: Upstream, look_every: float = _LOOK_EVERY_SECONDS) -> None:
        self._upstream = upstream
        self._look_every = look_every
        self._ask_every = _ASK_EVERY_SECONDS / _LOOK_EVERY_SECONDS * look_every
        self._lost: set[_Lost] = set()
        self._lock = threading.Lock()
        self._is_looking = False
        self._asked_at = -self._ask_every  # monotonic

    def find(self, submission: Submission, seconds: float = FIND_WITHIN_SECONDS) -> str | None:
        """Return the task of a submission, or None if it is not found within so many seconds."""
        lost = _Lost(submission)
        with self._lock:
            self._lost.add(lost)
            if not self._is_looking:
                self._is_looking = True
                threading.Thread(target=self._look_while_lost, name="finder", daemon=True).start()
        try:
            lost.is_found.wait(seconds)
        finally:
            with self._lock:
                self._lost.discard(lost)
        return lost.task_id

    def _look_while_lost(self) -> None:
        while lost := self._all():
            self._look(lost, lambda some: offload(submissions.tasks_by_trace, some))
            missing = [one for one in lost if one.task_id is None]
            if missing and time.monotonic() >= self._asked_at + self._ask_every:
                self._asked_at = time.monotonic()
                self._look(missing, self._ask)
            time.sleep(self._look_every)

    def _all(self) -> list[_Lost]:
        with self._lock:
            self._is_looking = bool(self._lost)
            return list(self._lost)

    def _look(self, lost: Sequence[_Lost], look: Callable[[Sequence[Submission]], dict[int, str]]) -> None:
        try:
            found = look([one.submission for one in lost])
        except DATABASE_ERRORS as problem:
            log.error("The database cannot be asked about lost submissions: %s", describe(problem))
            return
        for one in lost:
            if (task_id := found.get(one.submission.id)) is not None:
                one.task_id = task_id
                one.is_found.set()

    def _ask(self, some: Sequence[Submission]) -> dict[int, str]:
        found: dict[str, str] = {}
        for service, sent_at in by_service(some).items():
            try:
                found |= find_traces(self._upstream, SERVICES[service], sent_at)
            except UpstreamError as problem:
                log.warning("Upstream cannot be asked about lost submissions: %s", problem)
        return {one.id: found[one.trace_id] for one in some if one.trace_id in found}


def by_service(some: Sequence[Submission]) -> dict[str, dict[str, datetime]]:
    """Return when each trace id was submitted, by the service."""
    asked: dict[str, dict[str, datetime]] = defaultdict(dict)
    for one in some:
        if one.service in SERVICES:
            asked[one.service][one.trace_id] = one.sent_at
    return asked


def current_finder() -> Finder:
    """Return the lost submissions of the application that serves the current request."""
    return finder_of(current_app)


def finder_of(app: Flask) -> Finder:
    """Return the lost submissions of an application."""
    finder: Finder = app.extensions["backstop_finder"]
    return finder
