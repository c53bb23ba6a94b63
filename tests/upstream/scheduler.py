"""One thread that runs short actions when they are due."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

Action = Callable[[], None]


class Scheduler:
    """A heap of due actions. Times are monotonic. Actions with equal times keep their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._pending = 0
        self._thread = threading.Thread(target=self._run, name="stand-in scheduler", daemon=True)

    @property
    def pending(self) -> int:
        """Count the actions that are not done yet, including the one that is running."""
        return self._pending

    def start(self) -> None:
        """Start to run actions."""
        self._thread.start()

    def at(self, due: float, action: Action) -> None:
        """Run the action at that time, or as soon as possible after it."""
        with self._changed:
            heapq.heappush(self._heap, (due, next(self._order), action))
            self._pending += 1
            self._changed.notify()

    def stop(self) -> None:
        """Drop all waiting actions and wait for the one that is running."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (action := self._next()) is not None:
            action()
            with self._changed:
                self._pending -= 1

    def _next(self) -> Action | None:
        with self._changed:
            while not self._stopped:
                wait = self._heap[0][0] - time.monotonic() if self._heap else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(wait)
            return None
