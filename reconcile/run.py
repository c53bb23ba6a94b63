"""One run of the reconciler: claim what is due, ask upstream about it, apply the answers."""

import logging
import math
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from receiver.clock import utcnow
from receiver.config import Settings
from receiver.ledger import mending, pauses, runs, store
from receiver.ledger.engine.errors import describe
from receiver.ledger.evidence import ABSENT, Answer
from receiver.ledger.patience import STEADY_AFTER, Backoff, Patience, doubt_after, longest_waits
from receiver.upstream.client import ErrorScope, Upstream, UpstreamError
from receiver.upstream.results import FINAL, PENDING, Result, Unreadable, read_item
from reconcile.calls import Pages, carefully
from reconcile.pacemaker import SteadyClock
from reconcile.poison import Suspicion
from reconcile.rate_limit import RateLimiter
from reconcile.turns import Turns

log = logging.getLogger(__name__)

STOP_WITHIN = timedelta(seconds=10)
# Far above what a call may take, and below the default lease: only a server that drips reaches it.
CALL_WITHIN = timedelta(seconds=60)
# A run that always finds more would never be noted as finished.
RUN_FOR_SECONDS = 60.0
# After an error of which nobody knows whether it passes.
PAUSE_AFTER_UNKNOWN = timedelta(minutes=1)
# A smaller call may get through where one of these errors met it.
_HALVED = (ErrorScope.ID, ErrorScope.SIZE)


@dataclass(slots=True)
class Counts:
    """What a run counted: tasks, but for `calls` and `errors`, which are calls to upstream.

    Each task that was asked about is settled, confirmed, running, absent or unanswered.
    """

    due: int = 0
    asked: int = 0
    settled: int = 0
    confirmed: int = 0
    running: int = 0
    absent: int = 0
    calls: int = 0
    errors: int = 0
    error: str | None = None

    @property
    def unanswered(self) -> int:
        """How many tasks were asked about in calls that failed."""
        return self.asked - self.settled - self.confirmed - self.running - self.absent

    def __str__(self) -> str:
        names = ("due", "asked", "settled", "confirmed", "running", "absent", "unanswered", "calls", "errors")
        line = ", ".join(f"{getattr(self, name)} {name}" for name in names)
        return f"{line}; last error: {self.error}" if self.error else line


@dataclass(frozen=True, slots=True)
class _Asked:
    at: datetime
    items: list[Any]
    error: UpstreamError | None = None
    calls: int = 1


@dataclass(frozen=True, slots=True)
class _Call:
    claimed: store.Claim
    at: datetime
    deadline: float  # monotonic


class Reconciler:
    """Asks upstream about due tasks until `stop` is set. One thread at a time may run it."""

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        stop: threading.Event,
        limiter: RateLimiter | None = None,
        clock: SteadyClock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._stop = stop
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self.has_more = False  # the last run ended although more was due
        self._limiter = limiter or RateLimiter(settings.reconcile_max_rate)
        self._clock = clock or SteadyClock()
        self._patience = Patience(
            Backoff(rng or random.Random()),
            give_up_after=settings.reconcile_give_up_after,
            doubt_after=doubt_after(settings.reconcile_grace),
        )

    def run(self, due_by: datetime | None = None) -> Counts:
        """Ask about all tasks that are due, those included that become due meanwhile. Return the counts.

        It ends after RUN_FOR_SECONDS; `has_more` then tells whether the next run should begin at once.
        With `due_by` it asks only about tasks that were due by then, however long that takes. It ends early
        when upstream wants no calls, and when `stop` is set: it awaits the calls in flight, and gives back
        what was claimed and has no answer.
        """
        started_at = utcnow()
        # A single run has not watched the clock: there the late answers alone decide.
        is_steady = due_by is not None or self._clock.steady_for() >= STEADY_AFTER
        patience = replace(self._patience, clock_is_steady=is_steady)
        run = _Run(runs.open_run(self._name, started_at), patience, self._claiming(due_by))
        if due_by is None:
            run.ends_at = time.monotonic() + RUN_FOR_SECONDS
        try:
            self._mend_schedule(started_at)
            if store.is_anything_due(started_at) and self._is_allowed(run, started_at):
                self._converge(run)
        except Exception as problem:
            run.counts.error = f"{type(problem).__name__}: {describe(problem)}"
            raise
        finally:
            self.has_more = run.was_cut_short
            runs.close_run(run.id, utcnow(), asdict(run.counts))
        return run.counts

    def _mend_schedule(self, now: datetime) -> None:
        known, doubtful = longest_waits(self._settings.reconcile_grace, self._settings.reconcile_lease)
        if mended := mending.mend_schedule(now, known=known, doubtful=doubtful):
            log.warning("%d tasks had a next look-up set by a wrong clock. They are due now.", mended)

    def _is_allowed(self, run: "_Run", now: datetime) -> bool:
        """Tell whether to ask at all; while the account is paused, one reconciler may probe with one task."""
        pause = pauses.current_pause(now)
        if pause is None:
            return True
        if pause.account and pauses.take_probe(now):
            run.probe(self._claim_probe())
            return True
        run.counts.error = f"asking is paused: {pause.reason}"
        return False

    def _converge(self, run: "_Run") -> None:
        concurrency = self._settings.reconcile_concurrency
        calls = ThreadPoolExecutor(concurrency, thread_name_prefix="upstream")
        try:
            while run.goes_on and not self._stop.is_set():
                run.collect()
                # Asking goes before writing: upstream works while this thread is busy with the database.
                if run.has_more and run.has_room(concurrency) and self._limiter.take():
                    run.ask_next(self._upstream, calls, self._limiter)
                elif run.answered:
                    run.apply_next()
                else:
                    run.await_answer(self._limiter.seconds_left())
                run.note_progress()
            run.finish()
        finally:
            # Without waiting: a call that still hangs after a stop ends with the process.
            calls.shutdown(wait=False, cancel_futures=True)

    def _claiming(self, due_by: datetime | None) -> Callable[[bool], store.Claim]:
        settings = self._settings
        limit, lease = settings.reconcile_batch_size, settings.reconcile_lease
        return lambda doubtful: store.claim(
            utcnow(), limit=limit, lease=lease, doubtful=doubtful, due_by=due_by
        )

    def _claim_probe(self) -> store.Claim:
        lease = self._settings.reconcile_lease
        for doubtful in (False, True):
            claimed = store.claim(utcnow(), limit=1, lease=lease, doubtful=doubtful, probing=True)
            if claimed.tasks:
                break
        return claimed


class _Run:
    """The calls of one run and what came of them; only the run's own thread touches it, and the ledger."""

    def __init__(self, run_id: int, patience: Patience, claim: Callable[[bool], store.Claim]) -> None:
        self.id = run_id
        self.counts = Counts()
        self.in_flight: dict[Future[_Asked], _Call] = {}
        self.answered: deque[tuple[store.Claim, _Asked]] = deque()
        self.ends_at = math.inf  # monotonic; after it nothing new is asked
        self._turns = Turns(self._counted(claim))
        self._patience = patience
        self._probing = False
        self._suspicion = Suspicion()
        self._halted = False  # upstream wants no more calls
        self._noted_calls = 0

    @property
    def goes_on(self) -> bool:
        return not self._halted and bool(self.in_flight or self.answered or self.has_more)

    @property
    def has_more(self) -> bool:
        return self._turns.has_more and not self._is_over

    @property
    def was_cut_short(self) -> bool:
        return self._is_over and self._turns.has_more

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self.ends_at

    def has_room(self, concurrency: int) -> bool:
        """Tell whether another call may be made: one more than there are threads waits for one of them.

        While a code that nobody knows is found out, calls are made one by one.
        """
        if self._suspicion.is_open and self.in_flight:
            return False
        return len(self.in_flight) <= concurrency and len(self.answered) <= concurrency

    def probe(self, claimed: store.Claim) -> None:
        """Ask about these first; their answer tells whether there are more to ask about."""
        self._turns.exhausted = self._probing = True
        if claimed.tasks:
            self.counts.due += len(claimed.tasks)
            self._turns.put(claimed)

    def ask_next(self, upstream: Upstream, calls: ThreadPoolExecutor, limiter: RateLimiter) -> None:
        """Ask about the tasks whose turn it is, if any are due."""
        if claimed := self._turns.next(utcnow()):
            call = calls.submit(_ask, upstream, claimed.ids, limiter)
            self.in_flight[call] = _Call(claimed, utcnow(), time.monotonic() + CALL_WITHIN.total_seconds())

    def _counted(self, claim: Callable[[bool], store.Claim]) -> Callable[[bool], store.Claim]:
        def count(doubtful: bool) -> store.Claim:
            claimed = claim(doubtful)
            self.counts.due += len(claimed.tasks)
            return claimed

        return count

    def collect(self) -> None:
        """Take the answers that have come; errors at once, since upstream may want no more calls."""
        for future in [future for future in self.in_flight if future.done()]:
            claimed, asked = self.in_flight.pop(future).claimed, future.result()
            if asked.error:
                self._apply(claimed, asked)
            else:
                self._suspicion.note_answer()
                self.answered.append((claimed, asked))
        for future in [f for f, call in self.in_flight.items() if time.monotonic() > call.deadline]:
            call = self.in_flight.pop(future)
            error = UpstreamError(f"no answer within {CALL_WITHIN.total_seconds():g} s", permanent=False)
            self._apply(call.claimed, _Asked(call.at, [], error))

    def note_progress(self) -> None:
        """Write down what was counted, once a call at most, while there is more to do."""
        if self.counts.calls != self._noted_calls and self.goes_on:
            self._noted_calls = self.counts.calls
            runs.note_progress(self.id, utcnow(), asdict(self.counts))

    def apply_next(self) -> None:
        """Apply the answer that has waited longest."""
        self._apply(*self.answered.popleft())

    def await_answer(self, timeout: float) -> None:
        """Wait until a call ends, for `timeout` seconds at most."""
        if self.in_flight:
            wait(self.in_flight, timeout, FIRST_COMPLETED)
        else:
            time.sleep(timeout)

    def finish(self) -> None:
        """Await the calls in flight for STOP_WITHIN; give back what has no answer by then."""
        for call in [call for call in self.in_flight if call.cancel()]:
            self._turns.put(self.in_flight.pop(call).claimed)
        deadline = time.monotonic() + STOP_WITHIN.total_seconds()
        while self.in_flight and time.monotonic() < deadline:
            self.await_answer(timeout=0.1)
            self.collect()
        while self.answered:
            self.apply_next()
        for claimed in (*self._turns.take_rest(), *(call.claimed for call in self.in_flight.values())):
            store.release(claimed, utcnow())

    def _apply(self, claimed: store.Claim, asked: _Asked) -> None:
        error, now = asked.error, utcnow()
        self.counts.calls += asked.calls
        is_about_all = error is not None and self._suspicion.is_about_all(claimed, error)
        if error and error.scope in _HALVED and len(claimed.tasks) > 1 and not is_about_all:
            # Until the id that spoils it, or whose task is too large, stands alone. It is then the error.
            self._turns.put(*claimed.halves())
            return
        if error:
            self.counts.errors += 1
            self.counts.error = str(error)
        if error and error.stops_all:
            store.release(claimed, now)
            self._halted = True
            is_of_account = error.scope is ErrorScope.ACCOUNT
            pauses.stop_asking(str(error), now, account=is_of_account, retry_after=error.retry_after)
        else:
            self._join(claimed, asked, now)
            if error and is_about_all and not self._halted:
                self._halted = True
                log.error("Upstream refuses every look-up, for a reason that its contract does not name.")
                pauses.stop_asking(str(error), now, retry_after=PAUSE_AFTER_UNKNOWN)

    def _join(self, claimed: store.Claim, asked: _Asked, now: datetime) -> None:
        has_access = not asked.error or asked.error.shows_access
        if self._probing and has_access and pauses.resume(now):
            log.info("Upstream answers again; asking goes on.")
            self._turns.exhausted = False
        answers = _answers(claimed.ids, asked, self._suspicion)
        verdicts = [answer.verdict for answer in answers.values()]
        self.counts.asked += len(answers)
        self.counts.running += verdicts.count(PENDING)
        self.counts.absent += verdicts.count("absent")
        settled = store.apply(claimed, answers, self.id, asked.at, now, self._patience)
        self.counts.settled += settled
        self.counts.confirmed += sum(verdict in FINAL for verdict in verdicts) - settled


def _ask(upstream: Upstream, ids: list[str], limiter: RateLimiter) -> _Asked:
    at, pages = utcnow(), Pages(limiter, CALL_WITHIN)
    try:
        items = carefully(partial(upstream.retrieve_batch, ids, pages.take_place))
        return _Asked(at, items, calls=pages.asked)
    except UpstreamError as error:
        return _Asked(at, [], error, calls=pages.asked)


def _answers(ids: list[str], asked: _Asked, suspicion: Suspicion) -> dict[str, Answer]:
    """Match upstream's items to the ids asked about: by id alone; what nobody asked for is left out."""
    if asked.error:
        refused = len(ids) == 1 and suspicion.is_about_id(asked.error)
        return {task_id: Answer(error=str(asked.error), refused=refused) for task_id in ids}
    results: dict[str, Result] = {}
    for item in asked.items:
        try:
            result = read_item(item)
        except Unreadable:
            continue
        known = results.get(result.task_id)
        if known is None or result.key > known.key:
            results[result.task_id] = result
    return {
        task_id: Answer(results[task_id]) if task_id in results else Answer(error=ABSENT) for task_id in ids
    }
