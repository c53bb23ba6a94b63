"""Finds out what became of submissions whose answer was lost. It never submits again.

See "The life of a submission" in docs/design.md.
"""

import logging
import threading
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from peewee import chunked

from receiver.ledger import pauses, store, submissions
from receiver.ledger.models import Submission
from receiver.ledger.paces import Paces
from receiver.ledger.telling import When
from receiver.ledger.unclear import (
    give_to_submissions,
    is_sent_in_future,
    mend_sent_in_future,
    tasks_by_trace,
    unclear_by_service,
)
from receiver.upstream.client import UpstreamError
from receiver.upstream.services import SERVICES, Service
from receiver.upstream.traces import MOST_TRACES, can_find, find_traces
from reconcile.calls import Caller

log = logging.getLogger(__name__)

# None ends before this process has looked for it so long by the clock that nobody sets: by a wrong wall clock
# one that is in flight may seem to be years old.
_LOOKED_FOR_FOR = submissions.UNCLEAR_FOR - submissions.IN_FLIGHT_FOR
# A clock is hardly ever ahead by more.
_WRONG_CLOCK = timedelta(days=30)
# Of services whose submissions only a callback can tell of.
_WITHOUT_LOOKUPS_FOR = timedelta(days=1)


class UnclearSubmissions:
    """Looks for unclear submissions: by trace id in the ledger, then at upstream. Not for two threads."""

    def __init__(self, caller: Caller, paces: Paces, forward_when: When, stop: threading.Event) -> None:
        self._caller = caller
        self._paces = paces
        self._forward_when = forward_when
        self._stop = stop
        self._looked_for_since: dict[int, float] = {}  # monotonic, by id

    def look(self) -> None:
        """Look for all of them once, or until a stop. After 10 minutes without a trace one has ended."""
        now = self._caller.clock.now()
        found = unclear_by_service(now)
        self._note_looks(one for unclear in found.values() for one in unclear)
        for name, unclear in found.items():
            if self._stop.is_set():
                return
            if any(is_sent_in_future(one, now) for one in unclear):
                mend_sent_in_future(now)
            missing = self._accept(unclear, tasks_by_trace(unclear))
            if name in SERVICES:
                self._look_at_service(SERVICES[name], missing)

    def _look_at_service(self, service: Service, missing: Sequence[Submission]) -> None:
        for some in chunked(missing, MOST_TRACES):
            if not self._look_at_upstream(service, some):
                return  # do not let the other services wait for one that fails

    def _look_at_upstream(self, service: Service, missing: Sequence[Submission]) -> bool:
        """Find out what became of MOST_TRACES submissions at most. False: upstream cannot be asked now."""
        # What ends now is decided before upstream is asked, as its question differs.
        now = self._caller.clock.now()
        if not can_find(service):
            self._end(self._ending(missing, now - _WITHOUT_LOOKUPS_FOR))
            return True
        if pauses.current_pause(now, service.name):
            return False
        ending = self._ending(missing, now - submissions.UNCLEAR_FOR)
        # Of several with one trace id the oldest comes last here, and counts.
        sent_at = {one.trace_id: _not_before(one, ending) for one in reversed(missing)}
        try:
            self._await_place()  # without waiting, the first service and its oldest would take each place
            found = find_traces(self._caller.upstream, service, sent_at, self._await_place)
        except UpstreamError as problem:
            if not self._stop.is_set():
                log.warning("Upstream cannot be asked about unclear submissions, asking later: %s", problem)
            return False
        missing = self._accept(missing, give_to_submissions(missing, found))
        self._end([one for one in missing if one in ending])
        return True

    def _note_looks(self, unclear: Iterable[Submission]) -> None:
        now, before = self._caller.clock.monotonic(), self._looked_for_since
        self._looked_for_since = {one.id: before.get(one.id, now) for one in unclear}

    def _ending(self, missing: Iterable[Submission], sent_until: datetime) -> list[Submission]:
        """Return those that end if they are not found now."""
        since = self._caller.clock.monotonic() - _LOOKED_FOR_FOR.total_seconds()
        old = (one for one in missing if one.sent_at <= sent_until)
        return [one for one in old if self._looked_for_since[one.id] <= since]

    def _await_place(self) -> None:
        """Wait for the next place in the rate of calls. Raises UpstreamError if a stop comes before it."""
        while not (self._stop.is_set() or self._caller.limiter.take()):
            self._caller.clock.wait(self._caller.limiter.seconds_left())
        if self._stop.is_set():
            raise UpstreamError("no call after a stop", permanent=False)

    def _accept(self, unclear: Sequence[Submission], found: dict[int, str]) -> list[Submission]:
        """Register the tasks that were found, and return the submissions without one."""
        for one in unclear:
            if one.id in found:
                self._accept_one(one, found[one.id], self._caller.clock.now())
        return [one for one in unclear if one.id not in found]

    def _accept_one(self, submission: Submission, task_id: str, now: datetime) -> None:
        try:
            submissions.accept(
                submission,
                task_id,
                now,
                timetable=self._paces.timetable,
                forward_when=self._forward_when,
                is_told=False,
            )
        except store.OtherService as problem:
            log.warning(
                "An unclear submission was taken under another service than it is known under: %s", problem
            )
            submissions.note_task(submission, task_id, now, is_told=False)
        else:
            log.info("Unclear submission %s was taken: it is task %s.", submission.trace_id, task_id)

    def _end(self, ended: Sequence[Submission]) -> None:
        if ended and submissions.end(ended, self._caller.clock.now()):
            traces = ", ".join(one.trace_id for one in ended)
            log.warning("Upstream never had %d unclear submissions: %s", len(ended), traces)


def _not_before(one: Submission, ending: Sequence[Submission]) -> datetime:
    """Return the earliest moment at which the submission's task may have been made.

    Before a submission ends, an older task counts too: the clock may have been ahead when it was sent.
    """
    return one.sent_at - (_WRONG_CLOCK if one in ending else timedelta(0))
