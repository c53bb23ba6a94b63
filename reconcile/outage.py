"""Tells the log once that upstream fails persistently, and once that it answers again."""

import logging
from datetime import timedelta

from receiver.clock import Clock
from receiver.ledger import pauses
from receiver.ledger.reading import standing
from reconcile.counts import Counts

log = logging.getLogger(__name__)


class Outage:
    """How upstream has answered the runs of one process; by the monotonic clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing_since: float | None = None
        self._runs = 0
        self._told = False

    def note(self, counts: Counts) -> None:
        """Take note of what came of a run. A run that asked nothing tells nothing."""
        if not counts.calls:
            return
        if counts.errors * 2 > counts.calls:
            self._note_failure(counts)
            return
        if self._told:
            log.warning("Upstream answers look-ups again, after %.0f s.", self._lasted().total_seconds())
        self._failing_since, self._runs, self._told = None, 0, False

    def _note_failure(self, counts: Counts) -> None:
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()
        self._runs += 1
        persists = self._runs >= standing.FAILING_AFTER_RUNS and self._lasted() >= standing.FAILING_AFTER
        # A pause is told by itself.
        if self._told or not persists or pauses.current_pause(self._clock.now()):
            return
        self._told = True
        log.error(
            "Upstream has failed for %.0f s, the last time with: %s. Look-ups are repeated by themselves.",
            self._lasted().total_seconds(),
            counts.error,
        )

    def _lasted(self) -> timedelta:
        now = self._clock.monotonic()
        since = now if self._failing_since is None else self._failing_since
        return timedelta(seconds=now - since)
