"""One run of the reconciler: claim what is due, ask upstream about it, apply the answers."""

import logging
import os
import socket
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from receiver.config import Settings
from receiver.ledger import store
from receiver.ledger.clock import utcnow
from receiver.ledger.results import PENDING, Result, Unreadable, read_item
from receiver.upstream import Upstream, UpstreamError
from reconcile.backoff import backoff

log = logging.getLogger(__name__)

STOP_WITHIN = timedelta(seconds=10)
RECONCILER = f"{socket.gethostname()}:{os.getpid()}"


@dataclass(slots=True)
class Counts:
    """What a run counted: tasks, but for `calls` and `errors`, which are calls to upstream."""

    due: int = 0
    asked: int = 0
    settled: int = 0
    running: int = 0
    absent: int = 0
    calls: int = 0
    errors: int = 0
    error: str | None = None

    def __str__(self) -> str:
        line = ", ".join(f"{value} {name}" for name, value in asdict(self).items() if name != "error")
        return f"{line}; last error: {self.error}" if self.error else line


class Reconciler:
    """Asks upstream about due tasks until `stop` is set. One thread at a time may run it."""

    def __init__(self, settings: Settings, upstream: Upstream, stop: threading.Event) -> None:
        self._settings = settings
        self._upstream = upstream
        self._stop = stop
        self._next_call_at = 0.0  # monotonic; kept across runs: the ceiling on calls is the process's

    def run(self) -> Counts:
        """Ask about all tasks that are due now, each once, and return what came of it.

        An error that concerns the whole account ends the run early, and so does `stop`: calls in flight are
        awaited, what was claimed and has no answer is given back.
        """
        started_at = utcnow()
        waiting = self._claim(started_at)
        run = _Run(self._settings, store.open_run(RECONCILER, started_at))
        calls = ThreadPoolExecutor(self._settings.reconcile_concurrency, thread_name_prefix="upstream")
        try:
            while (waiting.tasks or run.in_flight) and not (run.halted or self._stop.is_set()):
                if waiting.tasks and run.has_room and self._may_call():
                    run.in_flight[calls.submit(_ask, self._upstream, waiting.ids)] = waiting
                    waiting = self._claim(started_at)
                else:
                    run.apply_finished(self._pause())
            store.give_back(waiting, utcnow())
            run.finish()
        finally:
            # Without waiting: a call that still hangs after a stop ends with the process.
            calls.shutdown(wait=False, cancel_futures=True)
        store.close_run(run.id, utcnow(), asdict(run.counts))
        return run.counts

    def _claim(self, due_at: datetime) -> store.Claim:
        limit, lease = self._settings.reconcile_batch_size, self._settings.reconcile_lease
        now = utcnow()
        # Not later than now: when the clock has jumped back, a lease lies before the run's beginning, and the
        # same tasks would be due again and again.
        return store.claim(min(due_at, now), now, limit=limit, lease=lease)

    def _may_call(self) -> bool:
        """Take the next place under the ceiling on calls a second, if its time has come."""
        now, rate = time.monotonic(), self._settings.reconcile_max_rate
        if now < self._next_call_at:
            return False
        self._next_call_at = now + (1 / rate if rate else 0)
        return True

    def _pause(self) -> float:
        """Return how many seconds to wait for an answer before looking whether to call or to stop."""
        return min(max(self._next_call_at - time.monotonic(), 0.01), 0.25)


class _Run:
    """The calls of one run and what came of them; only the run's own thread touches it, and the ledger."""

    def __init__(self, settings: Settings, run_id: int) -> None:
        self.id = run_id
        self.counts = Counts()
        self.halted = False
        self.in_flight: dict[Future[_Asked], store.Claim] = {}
        self._settings = settings

    @property
    def has_room(self) -> bool:
        # One more than there are threads: the next call starts while this thread is busy writing.
        return len(self.in_flight) <= self._settings.reconcile_concurrency

    def apply_finished(self, timeout: float) -> None:
        """Apply the answers that have come, or come within `timeout` seconds."""
        if not self.in_flight:
            time.sleep(timeout)
        for call in wait(self.in_flight, timeout, FIRST_COMPLETED).done:
            self._apply(self.in_flight.pop(call), call.result())

    def finish(self) -> None:
        """Await the calls in flight for STOP_WITHIN; give back what has no answer by then."""
        for call in [call for call in self.in_flight if call.cancel()]:
            store.give_back(self.in_flight.pop(call), utcnow())
        deadline = time.monotonic() + STOP_WITHIN.total_seconds()
        while self.in_flight and time.monotonic() < deadline:
            self.apply_finished(timeout=0.1)
        for claimed in self.in_flight.values():
            store.give_back(claimed, utcnow())
        self.in_flight.clear()

    def _apply(self, claimed: store.Claim, asked: "_Asked") -> None:
        self.counts.due += len(claimed.tasks)
        self.counts.calls += 1
        if asked.error:
            self.counts.errors += 1
            self.counts.error = str(asked.error)
        if asked.error and asked.error.account:
            self._halt(claimed, asked.error)
            return
        answers = _answers(claimed.ids, asked)
        verdicts = [answer.verdict for answer in answers.values()]
        self.counts.asked += len(answers)
        self.counts.running += verdicts.count(PENDING)
        self.counts.absent += verdicts.count("absent")
        self.counts.settled += store.apply(
            claimed,
            answers,
            self.id,
            asked.at,
            utcnow(),
            backoff=backoff,
            give_up_after=self._settings.reconcile_give_up_after,
        )

    def _halt(self, claimed: store.Claim, error: UpstreamError) -> None:
        store.give_back(claimed, utcnow())
        if not self.halted:
            log.error("Stopped asking, this concerns the whole account: %s", error)
        self.halted = True


@dataclass(frozen=True, slots=True)
class _Asked:
    at: datetime
    items: list[Any]
    error: UpstreamError | None = None


def _ask(upstream: Upstream, ids: list[str]) -> _Asked:
    at = utcnow()
    try:
        return _Asked(at, upstream.retrieve_batch(ids))
    except UpstreamError as error:
        return _Asked(at, [], error)


def _answers(ids: list[str], asked: _Asked) -> dict[str, store.Answer]:
    """Match upstream's items to the ids asked about: by id alone; what nobody asked for is left out."""
    if asked.error:
        return {task_id: store.Answer(error=str(asked.error)) for task_id in ids}
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
        task_id: store.Answer(results[task_id]) if task_id in results else store.Answer(error=store.ABSENT)
        for task_id in ids
    }
