"""Group commit: requests that write at the same moment share one durable transaction.

A commit waits for the disk, which takes milliseconds on a platform's volume, and SQLite allows one writer at
a time. With one transaction for each request, a burst of callbacks would queue up. So requests join a group
and wait. A writer thread commits the group in one transaction. Requests that arrive during that commit form
the next group.

Guarantees:

- `commit` returns the item's result once the transaction that holds the item is durable.
- An item that cannot be written fails alone: when a group's transaction fails, each item is retried in its
  own. All of them fail only when the database is down.
- No request waits longer than `within` seconds. This is why a thread writes: a request that wrote for its
  group could not give up. While the database is stuck, new requests wait less or fail fast.
- An item may still be written after its request gave up. A retry must therefore be idempotent, as a
  delivery is by its uid.

Under gevent, requests and the writer thread are greenlets.

See "Group commit and spool" in docs/design.md.
"""

import _thread
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from peewee import OperationalError

from receiver.ledger.engine.errors import is_outage

Item = TypeVar("Item")
Result = TypeVar("Result")

# Small enough that the transaction of one group stays short.
MOST_TOGETHER = 64
_WRITER_IDLES_SECONDS = 10.0
# The part of `within` that a request waits once an earlier request has given up.
_SHARE_WHILE_STUCK = 0.2


class GroupCommit(Generic[Item, Result]):
    """Commits items in groups with `write`.

    `write` writes all items or none. It returns one result for each item, in order.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Sequence[Result]],
        within: float,
        most_together: int = MOST_TOGETHER,
    ) -> None:
        self._write = write
        self._within = within  # seconds
        self._most_together = most_together
        self._waiting: queue.SimpleQueue[_Group[Item, Result]] = queue.SimpleQueue()
        self._has_writer = False
        self._writing_since: float | None = None  # monotonic; None while no group is being written
        self._is_stuck = False  # whether a request has given up since a group was last written
        self._lock = threading.Lock()  # guards `_gathering` and each start and end of the writer
        self._gathering: _Group[Item, Result] | None = None

    def commit(self, item: Item) -> Result:
        """Commit an item and return its result.

        Raises the error of writing it, or OperationalError when that takes too long.
        """
        patience = self._within * (_SHARE_WHILE_STUCK if self._is_stuck else 1)
        group, place = self._join(item)
        if place == 0:
            self._hand_over(group)
        if not group.is_done.wait(patience):
            group.given_up.add(place)
            self._is_stuck = True
            raise OperationalError(f"the database did not finish the write within {patience:g} s")
        return group.take(place)

    def _join(self, item: Item) -> "tuple[_Group[Item, Result], int]":
        """Add the item to the open group, and return the group with the item's place in it."""
        since = self._writing_since
        if since is not None and time.monotonic() - since > self._within:
            # Fail fast while the writer is stuck: all requests of its group have given up.
            raise OperationalError("the database has been busy for too long")
        with self._lock:
            if self._gathering is None:
                self._gathering = _Group()
            group, place = self._gathering, self._gathering.add(item)
            if place == self._most_together - 1:
                self._gathering = None
            return group, place

    def _hand_over(self, group: "_Group[Item, Result]") -> None:
        """Queue a group for the writer thread, and start that when there is none.

        A thread that stays costs less than a new one for each group.
        """
        with self._lock:
            self._waiting.put(group)
            if self._has_writer:
                return
            self._has_writer = True
        # A low-level thread: the process does not wait for it at exit.
        _thread.start_new_thread(self._write_all, ())

    def _write_all(self) -> None:
        """Write one group after the other; end after a while without any."""
        try:
            while True:
                try:
                    # Do not name the group: the name would keep it in memory until the next one comes.
                    self._write_group(self._waiting.get(timeout=_WRITER_IDLES_SECONDS))
                except queue.Empty:
                    with self._lock:
                        if self._waiting.empty():
                            self._has_writer = False
                            return
        except BaseException:
            self._has_writer = False
            raise

    def _write_group(self, group: "_Group[Item, Result]") -> None:
        try:
            # Let ready greenlets join the group first: none of them runs during a write to SQLite.
            time.sleep(0)
            self._close(group)
            self._write_timed(group)
        finally:
            self._close(group)
            group.fail_rest(OperationalError("the database did not finish the write in time"))
            group.is_done.set()

    def _close(self, group: "_Group[Item, Result]") -> None:
        """Let no more requests join the group."""
        with self._lock:
            if self._gathering is group:
                self._gathering = None

    def _write_timed(self, group: "_Group[Item, Result]") -> None:
        # Skip items whose requests gave up: those went to the spool.
        places = [place for place in range(len(group.items)) if place not in group.given_up]
        if not places:
            return
        began = self._writing_since = time.monotonic()
        try:
            self._write_places(group, places, began + self._within)
        finally:
            self._writing_since = None
            if group.results:
                self._is_stuck = False

    def _write_places(self, group: "_Group[Item, Result]", places: Sequence[int], deadline: float) -> None:
        try:
            results = self._write([group.items[place] for place in places])
        except Exception as problem:  # noqa: BLE001 - any error is raised again in the item's request
            if is_outage(problem):
                group.fail_rest(problem)
            elif len(places) == 1:
                group.problems[places[0]] = problem
            else:
                for place in places:
                    # Skip the rest once the database is down or the time is up.
                    if place not in group.problems and time.monotonic() < deadline:
                        self._write_places(group, [place], deadline)
        else:
            group.results.update(zip(places, results, strict=True))


class _Group(Generic[Item, Result]):
    """Items that are written together, with the result or the error of each by its place."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.results: dict[int, Result] = {}
        self.problems: dict[int, Exception] = {}
        self.given_up: set[int] = set()
        self.is_done = threading.Event()

    def add(self, item: Item) -> int:
        """Add an item and return its place."""
        self.items.append(item)
        return len(self.items) - 1

    def fail_rest(self, problem: Exception) -> None:
        """Set the error of all items that have neither a result nor an error yet."""
        for place in range(len(self.items)):
            if place not in self.results:
                self.problems.setdefault(place, problem)

    def take(self, place: int) -> Result:
        """Return an item's result, or raise its error."""
        problem = self.problems.pop(place, None)
        if problem is None:
            return self.results[place]
        try:
            raise problem
        finally:
            del problem  # break the cycle with its traceback, which would keep the item in memory
