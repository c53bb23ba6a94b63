"""Requests that wait for news: for a task to be settled, or for the next event.

A waiting request is a greenlet that holds no connection to the database. One thread looks for all of them,
each second, and only while there are any. It asks for what they wait for, and not for what is new: on
PostgreSQL an event may appear after one with a greater number. A callback that settles a task in this process
brings the next look forward.

A request that cannot wait is answered at once: when too many wait already, and when the worker is to end.
"""

import socket
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from flask import Flask, current_app, request
from peewee import OperationalError

from receiver.ledger.engine.errors import describe
from receiver.ledger.reading.events import newest_event, no_longer_pending
from receiver.web.connections import is_gone
from receiver.web.offload import offload

# Of the requests that a worker serves beside callbacks (worker.py). The others are for what does not wait.
MOST_WAITING = 200
LOOK_EVERY_SECONDS = 1.0
_LOOKS_APART_SECONDS = 0.05


@dataclass(eq=False, slots=True)
class _Request:
    """A request that waits for a task, or for an event after the one numbered `after`."""

    task_id: str | None = None
    after: int = 0
    connection: socket.socket | None = None
    is_counted: bool = True
    answer: threading.Event = field(default_factory=threading.Event)
    problem: str | None = None  # why the database could not be asked


class Waiting:
    """The requests of this process that wait. Safe to share between threads."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._requests: set[_Request] = set()
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._is_looking = False
        self._has_ended = False

    @property
    def count(self) -> int:
        """How many requests wait now, except for those that are counted elsewhere."""
        return sum(one.is_counted for one in list(self._requests))

    @property
    def has_ended(self) -> bool:
        """Whether the worker is about to end: nothing waits any more."""
        return self._has_ended

    def until_settled(self, task_id: str, seconds: float, *, is_counted: bool = True) -> None:
        """Wait until a task is no longer pending, or for so many seconds. Raises OperationalError.

        `is_counted`: the request counts among the waiting ones, which are bounded.
        """
        self._wait(_Request(task_id=task_id, is_counted=is_counted), seconds)

    def until_event(self, after: int, seconds: float) -> None:
        """Wait until there is an event after a number, or for so many seconds. Raises OperationalError."""
        self._wait(_Request(after=after), seconds)

    def hurry(self, task_id: str) -> None:
        """Look at once if anybody waits for this task, which has just been settled, or for events."""
        if self._requests and any(one.task_id in {None, task_id} for one in self._all()):
            self._hurry.set()

    def end(self) -> None:
        """Let all requests be answered at once, from now on."""
        self._has_ended = True
        self._answer(self._all())

    def _wait(self, waiting: _Request, seconds: float) -> None:
        waiting.connection = request.environ.get("gunicorn.socket")  # None with another server
        with self._lock:
            if self._has_ended or (waiting.is_counted and self.count >= self._most):
                return
            self._requests.add(waiting)
            if not self._is_looking:
                self._is_looking = True
                threading.Thread(target=self._look_while_waiting, name="waiting", daemon=True).start()
        try:
            waiting.answer.wait(seconds)
        finally:
            with self._lock:
                self._requests.discard(waiting)
        if waiting.problem is not None:
            raise OperationalError(waiting.problem)

    def _look_while_waiting(self) -> None:
        while self._goes_on():
            self._hurry.wait(LOOK_EVERY_SECONDS)
            self._hurry.clear()
            waiting = self._all()
            try:
                self._answer(_due(waiting))
            except Exception as problem:  # noqa: BLE001 - raised in all requests that wait
                self._answer(waiting, describe(problem))
            time.sleep(_LOOKS_APART_SECONDS)

    def _goes_on(self) -> bool:
        with self._lock:
            self._is_looking = bool(self._requests)
            return self._is_looking

    def _all(self) -> list[_Request]:
        with self._lock:
            return list(self._requests)

    def _answer(self, some: Collection[_Request], problem: str | None = None) -> None:
        for one in some:
            one.problem = problem
            one.answer.set()


def _due(waiting: Collection[_Request]) -> list[_Request]:
    """Return the requests that have waited long enough: for what has come, or for a client that is gone."""
    task_ids = {one.task_id for one in waiting if one.task_id is not None}
    settled = offload(no_longer_pending, task_ids) if task_ids else set()
    newest = offload(newest_event) if any(one.task_id is None for one in waiting) else 0

    def is_due(one: _Request) -> bool:
        has_come = one.after < newest if one.task_id is None else one.task_id in settled
        return has_come or (one.connection is not None and is_gone(one.connection))

    return [one for one in waiting if is_due(one)]


def current_waiting() -> Waiting:
    """Return the waiting requests of the application that serves the current request."""
    return waiting_of(current_app)


def waiting_of(app: Flask) -> Waiting:
    """Return the waiting requests of an application."""
    waiting: Waiting = app.extensions["backstop_waiting"]
    return waiting
