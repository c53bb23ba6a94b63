"""The one clock of a world, and the strands that wait by it: one thread, in which one strand runs at a time."""

import heapq
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet  # type: ignore[import-untyped]

from receiver.clock import Clock


class Died(GreenletExit):  # type: ignore[misc]  # greenlet has no type hints
    """The process of this strand has died: nothing of it runs any more."""


class Planned:
    """Something that happens once, at the first of the moments for which it is planned."""

    __slots__ = ("happen", "is_over")

    def __init__(self, happen: Callable[[], object]) -> None:
        self.happen = happen
        self.is_over = False


class WorldClock(Clock):
    """Time passes only while every strand waits. `ahead` is how wrong the wall clock is."""

    def __init__(self, began_at: datetime) -> None:
        self.ahead = timedelta(0)
        self.passed = 0.0
        self._began_at = began_at
        self._order = count()
        self._planned: list[tuple[float, int, Planned]] = []
        self.main = getcurrent()
        self.before_waiting: Callable[[], None] = lambda: None

    def now(self) -> datetime:
        return self.true_now() + self.ahead

    def true_now(self) -> datetime:
        return self._began_at + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed

    def plan(self, seconds: float, happen: Callable[[], object]) -> Planned:
        """Let something happen in so many seconds."""
        planned = Planned(happen)
        self._push(seconds, planned)
        return planned

    def wait(self, seconds: float, calls: Collection[Future[Any]] = ()) -> None:
        if any(call.done() for call in calls):
            return
        self.before_waiting()
        strand = getcurrent()
        planned = self.plan(seconds, strand.switch)
        for call in calls:
            call.add_done_callback(lambda _: None if planned.is_over else self._push(0, planned))
        try:
            self.main.switch()
        finally:
            planned.is_over = True
        if isinstance(strand, Strand) and not strand.process.is_alive:
            raise Died

    def run(self, seconds: float) -> None:
        """Let so much time pass. Whatever a strand raises, this raises."""
        ends_at = self.passed + seconds
        while self._planned and self._planned[0][0] <= ends_at:
            at, _, planned = heapq.heappop(self._planned)
            if not planned.is_over:
                self.passed = max(self.passed, at)
                planned.is_over = True
                planned.happen()
        self.passed = max(self.passed, ends_at)

    def _push(self, seconds: float, planned: Planned) -> None:
        heapq.heappush(self._planned, (self.passed + max(seconds, 0), next(self._order), planned))


class Strand(greenlet):  # type: ignore[misc]  # as above
    """What runs in a process beside other things: a request, a job, a call to upstream."""

    process: "Process"


class Process:
    """A process that may die at any moment. What it has in memory is in its strands and in its subclass."""

    def __init__(self, name: str, clock: WorldClock, on_death: Callable[["Process"], None]) -> None:
        self.name = name
        self.clock = clock
        self.is_alive = True
        self._on_death = on_death
        self._strands: dict[Strand, None] = {}  # in the order of their beginnings

    def spawn(self, work: Callable[[], object]) -> None:
        """Begin something now, beside what runs already."""
        strand: Strand = Strand(lambda: self._run(strand, work), self.clock.main)
        strand.process = self
        self._strands[strand] = None
        self.clock.plan(0, strand.switch)

    def die(self) -> None:
        """End at once. Raises Died if one of its own strands calls this."""
        if self.is_alive:
            self.is_alive = False
            self.clock.plan(0, self._bury)
        if isinstance(strand := getcurrent(), Strand) and strand.process is self:
            raise Died

    def _run(self, strand: Strand, work: Callable[[], object]) -> None:
        try:
            work()
        except Died:
            assert not self.is_alive
        finally:
            self._strands.pop(strand, None)

    def bury(self) -> None:
        """End all strands."""
        self.is_alive = False
        for strand in list(self._strands):
            strand.throw(Died)
        self._strands.clear()

    def _bury(self) -> None:
        self.bury()
        self._on_death(self)


class Threads(Executor):
    """Up to `number` calls at once, each in a strand of its process."""

    def __init__(self, process: Process, number: int) -> None:
        self._process = process
        self._free = number
        self._waiting: list[Callable[[], None]] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def make() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*args, **kwargs))
                except Exception as problem:  # noqa: BLE001 - as threads do
                    future.set_exception(problem)
            self._free += 1
            self._begin()

        self._waiting.append(make)
        self._begin()
        return future

    def _begin(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._process.spawn(self._waiting.pop(0))


def process_now() -> Process | None:
    """Return the process that runs now; None for the world around them."""
    strand = getcurrent()
    return strand.process if isinstance(strand, Strand) else None
