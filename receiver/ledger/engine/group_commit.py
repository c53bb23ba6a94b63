"""Group commit: what the requests of a process want to write at one moment becomes durable together.

A commit waits for the disk, milliseconds on a platform's volume, and SQLite takes one writer at a time: with
a transaction for each request a burst of callbacks would wait for itself. Therefore requests gather in a
group. A thread beside them writes what all have brought by its turn in one transaction, while they wait
for it. Requests that come meanwhile form the next group.

What it guarantees:

- `commit` returns when the transaction that holds the item is durable, with what came of that item.
- An item that cannot be written fails alone: when a transaction of several fails, each is tried by itself.
  Only when the database is away do all of them fail.
- Every request waits for `within` seconds at most, the first of a group too: that is why none of them
  writes itself. While the database is stuck, newcomers wait less or not at all.
- An abandoned item may still be written a little later: a retry must be idempotent, as a delivery is by
  its uid.

Requests and threads are greenlets where the server makes them so.

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

# Few enough that the last of them does not wait long for the first.
MOST_TOGETHER = 64
_WRITER_IDLES_SECONDS = 10.0
# How much of its time a request waits while nothing is written. Those before it have waited all of it.
_SHARE_WHILE_STUCK = 0.2


class GroupCommit(Generic[Item, Result]):
    """Writes items with `write`, which does all of them or none and returns a result for each, in order."""

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
        self._writing_since: float | None = None  # monotonic; None while nobody writes
        self._is_stuck = False  # whether a request has given up since a group was last written
        self._lock = threading.Lock()  # for what follows
        self._gathering: _Group[Item, Result] | None = None

    def commit(self, item: Item) -> Result:
        """Return what came of the item, once that is durable. Raises what writing it raised, and
        OperationalError when it takes too long."""
        patience = self._within * (_SHARE_WHILE_STUCK if self._is_stuck else 1)
        group, place = self._join(item)
        if place == 0:
            self._hand_over(group)
        if not group.is_done.wait(patience):
            group.given_up.add(place)
            self._is_stuck = True
            raise OperationalError(f"the database did not take it within {patience:g} s")
        return group.take(place)

    def _join(self, item: Item) -> "tuple[_Group[Item, Result], int]":
        """Put the item into the group that gathers, and return that with the item's place."""
        since = self._writing_since
        if since is not None and time.monotonic() - since > self._within:
            # Fail fast: all who waited so long have given up.
            raise OperationalError("the database has been busy for too long")
        with self._lock:
            if self._gathering is None:
                self._gathering = _Group()
            group, place = self._gathering, self._gathering.add(item)
            if place == self._most_together - 1:
                self._gathering = None
            return group, place

    def _hand_over(self, group: "_Group[Item, Result]") -> None:
        """Give a group to the writer. One that is kept costs less than a new one for each group."""
        with self._lock:
            self._waiting.put(group)
            if self._has_writer:
                return
            self._has_writer = True
        # Of the low-level kind: a process that ends does not wait for it.
        _thread.start_new_thread(self._write_all, ())

    def _write_all(self) -> None:
        """Write one group after the other; end when there has been none for a while."""
        try:
            while True:
                try:
                    # Without a name, which would keep the group in memory until the next comes.
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
            # Let some of those who are ready bring theirs too: of greenlets none runs during a write.
            time.sleep(0)
            self._close(group)
            self._write_timed(group)
        finally:
            self._close(group)
            group.fail_rest(OperationalError("the database did not take it in time"))
            group.is_done.set()

    def _close(self, group: "_Group[Item, Result]") -> None:
        """Let nobody join the group any more."""
        with self._lock:
            if self._gathering is group:
                self._gathering = None

    def _write_timed(self, group: "_Group[Item, Result]") -> None:
        # The others are in the spool by now.
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
        except Exception as problem:  # noqa: BLE001 - whatever it is, it is raised in the request it concerns
            if is_outage(problem):
                group.fail_rest(problem)
            elif len(places) == 1:
                group.problems[places[0]] = problem
            else:
                for place in places:
                    # Once the database is away, or the time over, the rest is not tried.
                    if place not in group.problems and time.monotonic() < deadline:
                        self._write_places(group, [place], deadline)
        else:
            group.results.update(zip(places, results, strict=True))


class _Group(Generic[Item, Result]):
    """Items that are written together, and what came of each, by its place."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.results: dict[int, Result] = {}
        self.problems: dict[int, Exception] = {}
        self.given_up: set[int] = set()
        self.is_done = threading.Event()

    def add(self, item: Item) -> int:
        """Return the item's place."""
        self.items.append(item)
        return len(self.items) - 1

    def fail_rest(self, problem: Exception) -> None:
        """Let the problem be that of all items of which nothing is known yet."""
        for place in range(len(self.items)):
            if place not in self.results:
                self.problems.setdefault(place, problem)

    def take(self, place: int) -> Result:
        """Return what came of an item, or raise it."""
        problem = self.problems.pop(place, None)
        if problem is None:
            return self.results[place]
        try:
            raise problem
        finally:
            del problem  # its traceback holds this frame: what was not written would stay in memory
