"""One run of the reconciler: claim what is due, ask upstream about it, apply the answers.

See "The life of a task" in docs/design.md.
"""

import logging
import math
import os
import random
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial

from receiver.config import Settings
from receiver.ledger import mending, pauses, runs, store
from receiver.ledger.engine.errors import describe
from receiver.ledger.paces import Paces
from receiver.ledger.patience import STEADY_AFTER, Backoff, Patience, doubt_after, longest_waits
from reconcile.asking import Asking
from reconcile.calls import Caller
from reconcile.counts import Counts
from reconcile.fairness import Fairness
from reconcile.pacemaker import SteadyClock
from reconcile.rate_limit import SEE_STOP_WITHIN_SECONDS
from reconcile.wrong_clock import WrongClock

log = logging.getLogger(__name__)

# A run that always finds more would never be noted as finished.
RUN_FOR_SECONDS = 60.0
# A due task waits until others are due too, so that one call asks about all of them. It waits for this share
# of the grace at most. Results to be confirmed do not wait, and take along what is due.
_COMPANY_GRACES = 1 / 6
NOTE_IDLE_EVERY = timedelta(seconds=15)


class Reconciler:
    """Asks upstream about due tasks until `stop` is set. One thread at a time may run it."""

    def __init__(
        self,
        settings: Settings,
        caller: Caller,
        paces: Paces,
        steady: SteadyClock,
        rng: random.Random,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._caller = caller
        self._clock = caller.clock
        self._steady = steady
        self._wrong_clock = WrongClock(caller.upstream)
        self._stop = stop
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self.has_more = False  # the last run ended although more was due
        self.was_good = False  # the last call of run() was a run, and ended without an error
        self._paces = paces
        self._rng = rng
        self._company_within = settings.reconcile_grace * _COMPANY_GRACES
        self._noted_at = -math.inf  # monotonic: when a run last left a row
        self._silent: set[str] = set()  # the services whose last call got no answer
        self._in_vain = False  # the last run could claim nothing of what was due

    def run(self, due_by: datetime | None = None) -> Counts:
        """Ask about all tasks that are due, those included that become due meanwhile. Return the counts.

        It ends after RUN_FOR_SECONDS; `has_more` then tells whether the next run should begin at once.
        With `due_by` it asks only about tasks that were due by then, however long that takes. It ends early
        when upstream wants no calls, and when `stop` is set: it awaits the calls in flight, and releases
        what was claimed and has no answer. While there is nothing to ask, it notes that only once in
        NOTE_IDLE_EVERY: that tells that the reconciler is at work.
        """
        started_at = self._clock.now()
        self.was_good = False
        if due_by is None and not self._is_worth_a_run(started_at):
            self.has_more = False
            return Counts()
        self._noted_at = self._clock.monotonic()
        self._mend_schedule(started_at)
        if not self._is_due(started_at, due_by):
            return self._note_idle(started_at)
        run_id = runs.open_run(self._name, started_at)
        run = self._asking(run_id, due_by)
        try:
            if self._is_allowed(run, started_at):
                self._converge(run)
            self._in_vain = not (run.counts.due or run.counts.error)
        except Exception as problem:
            run.counts.error = f"{type(problem).__name__}: {describe(problem)}"
            raise
        finally:
            self.has_more = run.was_cut_short
            self._wrong_clock.note(run.counts)
            runs.close_run(run_id, self._clock.now(), asdict(run.counts))
        self.was_good = run.counts.error is None
        return run.counts

    def _note_idle(self, now: datetime) -> Counts:
        counts = Counts()
        self._wrong_clock.note(counts)
        runs.note_idle(self._name, now, counts.clock_ahead)
        self.has_more = self._in_vain = False
        self.was_good = True
        return counts

    def _is_worth_a_run(self, now: datetime) -> bool:
        idle_for = self._clock.monotonic() - self._noted_at
        if idle_for >= NOTE_IDLE_EVERY.total_seconds():
            return True
        return not self._in_vain and self._is_due(now, None) and pauses.may_ask(now)

    def _is_due(self, now: datetime, due_by: datetime | None) -> bool:
        # A single run waits for no company.
        return store.is_anything_due(now, timedelta(0) if due_by else self._company_within)

    def _asking(self, run_id: int, due_by: datetime | None) -> Asking:
        # A single run has not watched the clock: there the late answers alone decide.
        is_steady = due_by is not None or self._steady.steady_for() >= STEADY_AFTER
        timetable = self._paces.timetable.when_busy() if self.has_more else self._paces.timetable
        patience = Patience(
            Backoff(timetable, self._rng),
            give_up_after=self._settings.reconcile_give_up_after,
            doubt_after=doubt_after(self._settings.reconcile_grace),
            clock_is_steady=is_steady,
        )
        run = Asking(run_id, self._caller, patience, self._claiming(due_by), self._silent)
        if due_by is None:
            run.ends_at = self._clock.monotonic() + RUN_FOR_SECONDS
        return run

    def _mend_schedule(self, now: datetime) -> None:
        known, doubtful = longest_waits(self._settings.reconcile_grace, self._settings.reconcile_lease)
        if mended := mending.mend_schedule(now, known=known, doubtful=doubtful):
            log.warning("%d tasks had a next look-up set by a wrong clock. They are due now.", mended)

    def _is_allowed(self, run: Asking, now: datetime) -> bool:
        """Tell whether to ask at all; while asking is paused, one reconciler may probe with one task."""
        pause = pauses.current_pause(now)
        probed = [self._probe(run, service, now) for service in pauses.due_probes(now)]
        if pause is None or any(probed):
            return True
        run.counts.error = f"asking is paused: {pause.reason}"
        return False

    def _probe(self, run: Asking, paused: str, now: datetime) -> bool:
        """Let the run probe a service that is paused, or ALL. Returns False if another reconciler does."""
        claimed = self._claim_probe(paused)
        if paused and not claimed.tasks:
            return False  # a discovery may probe it
        if pauses.take_probe(now, paused):
            run.probe(claimed, paused)
            return True
        if claimed.tasks:
            store.release(claimed, now)
        return False

    def _converge(self, run: Asking) -> None:
        concurrency = self._settings.reconcile_concurrency
        limiter = self._caller.limiter
        try:
            while run.goes_on and not self._stop.is_set():
                run.collect()
                run.look_again()
                # Asking goes before writing: upstream works while this thread is busy with the database.
                may_ask = run.has_more and run.has_room(concurrency)
                if may_ask and limiter.take():
                    if not run.ask_next():
                        limiter.put_back()
                elif run.answered:
                    run.apply_next()
                else:
                    run.await_answer(limiter.seconds_left() if may_ask else SEE_STOP_WITHIN_SECONDS)
                run.note_progress()
            run.finish()
        finally:
            run.cancel()

    def _claiming(self, due_by: datetime | None) -> Callable[[bool, Collection[str]], store.Claim]:
        settings = self._settings
        limit, lease = settings.reconcile_batch_size, settings.reconcile_lease

        def take(doubtful: bool, besides: Collection[str]) -> store.Claim:
            now = self._clock.now()
            if not self._is_due(now, due_by):
                return store.Claim((), now, doubtful)
            return store.claim(
                now, limit=limit, lease=lease, doubtful=doubtful, due_by=due_by, besides=besides
            )

        sharing = {doubtful: Fairness(partial(take, doubtful)) for doubtful in (False, True)}
        return lambda doubtful, besides: sharing[doubtful].claim(self._clock.monotonic(), besides)

    def _claim_probe(self, paused: str) -> store.Claim:
        lease = self._settings.reconcile_lease
        for doubtful in (False, True):
            now = self._clock.now()
            claimed = store.claim(now, limit=1, lease=lease, doubtful=doubtful, probe=paused)
            if claimed.tasks:
                break
        return claimed
