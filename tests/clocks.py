"""Clocks that a test sets, and a whole day that passes in a moment."""

import heapq
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from receiver.clock import Clock, utcnow


class SetClock(Clock):
    """Its wall clock goes wrong by `ahead`, or stands still at `at`; waiting is real."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return (self.at or utcnow()) + self.ahead


class VirtualClock(Clock):
    """A clock that only waiting moves, and a test. What is planned for a moment happens at that moment."""

    def __init__(self, now: datetime | None = None) -> None:
        self._began_at = now or utcnow()
        self._passed = 0.0
        self._order = count()
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self.ahead = timedelta(0)  # of the wall clock

    def now(self) -> datetime:
        return self._began_at + timedelta(seconds=self._passed) + self.ahead

    def monotonic(self) -> float:
        return self._passed

    def wait(self, seconds: float, calls: Collection[Future[Any]] = ()) -> None:
        ends_at = self._passed + seconds
        while not any(call.done() for call in calls) and self._planned and self._planned[0][0] <= ends_at:
            at, _, happen = heapq.heappop(self._planned)
            self._passed = max(self._passed, at)
            happen()
        if not any(call.done() for call in calls):
            self._passed = max(self._passed, ends_at)

    def plan(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen in so many seconds."""
        heapq.heappush(self._planned, (self._passed + seconds, next(self._order), happen))


class VirtualThreads(Executor):
    """Makes each call `latency` seconds after it was submitted, in the thread that waits meanwhile."""

    def __init__(self, clock: VirtualClock, latency: float = 0.0) -> None:
        self._clock = clock
        self._latency = latency

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def make() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*args, **kwargs))
                except Exception as problem:  # noqa: BLE001 - as threads do
                    future.set_exception(problem)

        self._clock.plan(self._latency, make)
        return future
