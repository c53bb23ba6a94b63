"""Keeps the schedule when the wall clock is set: APScheduler computes its waits from the wall clock.

See "Clocks" in docs/design.md.
"""

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from receiver.clock import Clock

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0
# Smaller steps are what time servers correct every day. No job is late by more.
_JUMP_AT_LEAST = timedelta(seconds=2)
# The two clocks are read one after the other. A process that is stopped in between has seen no jump.
_READ_WITHIN_SECONDS = 0.5


class SteadyClock:
    """Tells how steadily the wall clock goes, measured by the monotonic clock. Safe to share."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began_at, self._wall_began_at = clock.monotonic(), clock.now()
        self._jumps = 0
        self._last_jump = timedelta(0)

    def look(self) -> tuple[int, timedelta]:
        """Return how often the wall clock has jumped so far, and how far it jumped the last time."""
        with self._lock:
            before, now, after = self._clock.monotonic(), self._clock.now(), self._clock.monotonic()
            if after - before < _READ_WITHIN_SECONDS:
                self._compare(after, now)
            return self._jumps, self._last_jump

    def steady_for(self) -> timedelta:
        """Return the monotonic time since the wall clock last jumped, or since this object was made."""
        self.look()
        with self._lock:
            return timedelta(seconds=self._clock.monotonic() - self._began_at)

    def _compare(self, monotonic: float, now: datetime) -> None:
        jump = now - self._wall_began_at - timedelta(seconds=monotonic - self._began_at)
        if abs(jump) >= _JUMP_AT_LEAST:
            self._jumps, self._last_jump = self._jumps + 1, jump
            self._began_at, self._wall_began_at = monotonic, now


class Pacemaker:
    """Calls `on_jump` soon after each jump of the wall clock, in a thread of its own."""

    def __init__(self, steady: SteadyClock, on_jump: Callable[[], None]) -> None:
        self._steady = steady
        self._on_jump = on_jump
        self._seen, _ = steady.look()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="pacemaker", daemon=True)

    def start(self) -> None:
        """Begin to watch the clock."""
        self._thread.start()

    def look(self) -> None:
        """Look once at the clock; the thread does so every LOOK_EVERY_SECONDS."""
        jumps, jump = self._steady.look()
        if jumps != self._seen:
            self._seen = jumps
            log.warning("The clock was set %s. All jobs are due now.", _told(jump))
            self._call()

    def stop(self) -> None:
        """Stop watching, and wait for the thread's end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY_SECONDS):  # a monotonic wait
            self.look()

    def _call(self) -> None:
        try:
            self._on_jump()
        except Exception:  # the next jump must be noticed too
            log.exception("The schedule could not follow the clock")


def _told(jump: timedelta) -> str:
    return f"{'back' if jump < timedelta(0) else 'ahead'} by {abs(jump.total_seconds()):.0f} s"
