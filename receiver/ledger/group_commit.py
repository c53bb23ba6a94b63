"""Group commit: what the threads of a process want to write at one moment becomes durable together.

A commit waits for the disk, milliseconds on a platform's volume, and SQLite takes one writer at a time: with
a transaction for each request a burst of callbacks would wait for itself. Therefore the first thread that
wants to write leads: it writes what all have brought by then in one transaction, while the others wait for
it. What has come meanwhile goes into the next transaction, which the first of those that wait leads.

What it guarantees:

- `commit` returns when the transaction that holds the item is durable, with what came of that item.
- An item that cannot be written fails alone: when a transaction of several fails, each is tried by itself.
  Only when the database is away do all of them fail.
- Who waits for a leader does so for `within` seconds at most. An item that was given up may still be written
  a little later: who brings it again must be able to tell that it is the same, as a delivery is by its uid.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from peewee import OperationalError

from receiver.ledger.db import is_away

Item = TypeVar("Item")
Result = TypeVar("Result")

# Few enough that the last of them does not wait long for the first.
MOST_TOGETHER = 64


class GroupCommit(Generic[Item, Result]):
    """Writes items with `write`, which does all of them or none and returns a result for each, in order."""

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result]], within: float) -> None:
        self._write = write
        self._within = within  # seconds
        self._lock = threading.Lock()  # for what follows
        self._waiting: deque[_Waiter[Item, Result]] = deque()
        self._led_since: float | None = None  # monotonic; None while nobody leads

    def commit(self, item: Item) -> Result:
        """Return what came of the item, once that is durable. Raises what writing it raised, and
        OperationalError when it takes too long."""
        waiter: _Waiter[Item, Result] = _Waiter(item)
        if not self._join(waiter):
            self._wait(waiter)
        if not waiter.is_done:
            self._lead()
        problem, waiter.problem = waiter.problem, None
        if problem is None:
            return waiter.result
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame: what was not written would stay in memory

    def _join(self, waiter: "_Waiter[Item, Result]") -> bool:
        """Put the waiter in the queue and tell whether it leads."""
        with self._lock:
            now = time.monotonic()
            if self._led_since is not None and now - self._led_since > self._within:
                # Who has waited so long has given up; whoever comes now need not wait to find that out.
                raise OperationalError("the database has been busy for too long")
            self._waiting.append(waiter)
            leads = self._led_since is None
            if leads:
                self._led_since = now
            return leads

    def _wait(self, waiter: "_Waiter[Item, Result]") -> None:
        """Wait until the waiter is done, or is to lead."""
        if waiter.woken.acquire(timeout=self._within):
            return
        with self._lock:
            if waiter.woken.acquire(blocking=False):
                return  # at the last moment
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        raise OperationalError(f"the database did not take it within {self._within:g} s")

    def _lead(self) -> None:
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]
        try:
            self._write_group(group)
        finally:
            for waiter in group:
                if not waiter.is_done:  # this thread is being ended
                    waiter.fail(OperationalError("the thread that wrote it was ended"))
            with self._lock:
                self._led_since = time.monotonic() if self._waiting else None
                if self._waiting:
                    self._waiting[0].woken.release()
            for waiter in group:
                waiter.woken.release()

    def _write_group(self, group: list["_Waiter[Item, Result]"]) -> None:
        try:
            results = self._write([waiter.item for waiter in group])
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is raised in the thread it concerns
            if len(group) > 1 and not is_away(problem):
                self._write_each(group)
            else:
                for waiter in group:
                    waiter.fail(problem)
        else:
            for waiter, result in zip(group, results, strict=True):
                waiter.succeed(result)

    def _write_each(self, group: list["_Waiter[Item, Result]"]) -> None:
        for number, waiter in enumerate(group):
            self._write_group([waiter])
            if waiter.problem and is_away(waiter.problem):
                for left in group[number + 1 :]:
                    left.fail(waiter.problem)
                return


class _Waiter(Generic[Item, Result]):
    """An item, and the thread that waits for what comes of it."""

    __slots__ = ("is_done", "item", "problem", "result", "woken")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.is_done = False
        self.result: Result
        self.problem: Exception | None = None
        self.woken = threading.Lock()  # a lock is the fastest thing to wait for
        self.woken.acquire()

    def succeed(self, result: Result) -> None:
        self.result, self.is_done = result, True

    def fail(self, problem: Exception) -> None:
        self.problem, self.is_done = problem, True
