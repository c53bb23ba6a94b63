"""The calls of one run and what came of them."""

import logging
import math
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from datetime import datetime, timedelta

from receiver.ledger import pauses, runs, store
from receiver.ledger.evidence import Answer
from receiver.ledger.patience import Patience
from receiver.upstream.client import ErrorScope, UpstreamError
from receiver.upstream.results import FINAL, PENDING
from receiver.upstream.services import SERVICES
from reconcile.answers import answers_of
from reconcile.calls import STOP_WITHIN, Asked, Caller
from reconcile.counts import Counts
from reconcile.poison import Suspicion
from reconcile.turns import Turns

log = logging.getLogger(__name__)

# After an error with an unknown code. It may pass or not.
PAUSE_AFTER_UNKNOWN = timedelta(minutes=1)
# After one of these errors a smaller call may get through.
_HALVED = (ErrorScope.ID, ErrorScope.SIZE)
_LOOK_AGAIN_AFTER_SECONDS = 1.0


class Asking:
    """What one run asks, and what came of it. Only the run's thread uses this object, and the ledger.

    A run goes through these states:
    - *Asking*: it claims what is due, and asks about it. It ends when nothing is due or in flight.
    - *Probing*: the account is paused, and the run claims one task. If the answer shows that upstream accepts
      the token, the pause ends and the run is asking. Otherwise it claims nothing more. A service that is
      paused itself is probed in the same way, while the run asks about the others.
    - *Suspecting*: a call about a service met an error with an unknown code. The run makes one call at a
      time. If one about that service is answered, only single ids are bad, and the run is asking. If all
      fail, upstream refuses everything about the service, and the run asks about the others alone.
    - *Over*: its time is up. It asks nothing more, not even about halves of batches that it holds.
    - *Halted*: upstream wants no more calls.
    - *Stopped*: the process ends.
    In the last three the run ends with `finish`. That awaits the calls in flight and releases all tasks that
    have no answer. So no task stays claimed, except after a crash: then its lease lapses.
    """

    def __init__(
        self,
        run_id: int,
        caller: Caller,
        patience: Patience,
        claim: Callable[[bool, Collection[str]], store.Claim],
        silent: set[str],
    ) -> None:
        self.counts = Counts()
        self.in_flight: dict[Future[Asked], store.Claim] = {}
        self.answered: deque[tuple[store.Claim, Asked]] = deque()
        self.ends_at = math.inf  # monotonic; after it nothing new is asked
        self._id = run_id
        self._caller = caller
        self._clock = caller.clock
        self._claim = claim
        self._turns = Turns(self._claim_next)
        self._silent = silent  # the services whose last call got no answer: one call at a time to each
        self._look_again_at = -math.inf  # monotonic
        self._patience = patience
        self._probed: set[str] = set()  # the services that are paused and probed, or ALL
        self._left_out: set[str] = set()  # the services that were paused during this run
        self._suspicions: defaultdict[str, Suspicion] = defaultdict(Suspicion)
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
        return self._clock.monotonic() > self.ends_at

    def has_room(self, concurrency: int) -> bool:
        """Tell whether another call may be made. One more than there are threads waits for the next free one.

        While the run is suspecting, calls are made one by one.
        """
        suspected = (one for name, one in self._suspicions.items() if name not in self._left_out)
        if self.in_flight and any(suspicion.is_open for suspicion in suspected):
            return False
        return len(self.in_flight) <= concurrency and len(self.answered) <= concurrency

    def probe(self, claimed: store.Claim, paused: str) -> None:
        """Ask about these first. Their answer decides whether the run asks about more of what is `paused`.

        That is a service, or ALL.
        """
        if paused == pauses.ALL:
            self._turns.exhausted = True
        if claimed.tasks:
            self._probed |= {paused, claimed.service}
            self.counts.due += len(claimed.tasks)
            self._turns.put(claimed)

    def look_again(self) -> None:
        """Look once a second for what has become due while a call is in flight: it may take long."""
        now = self._clock.monotonic()
        if self.in_flight and now >= self._look_again_at and pauses.ALL not in self._probed:
            self._look_again_at = now + _LOOK_AGAIN_AFTER_SECONDS
            self._turns.exhausted = False

    def ask_next(self) -> bool:
        """Ask about the tasks whose turn it is. Returns False when none are due."""
        claimed = self._turns.next(self._clock.now())
        if claimed:
            self.in_flight[self._caller.look_up(SERVICES[claimed.service], claimed.ids)] = claimed
        return claimed is not None

    def _claim_next(self, doubtful: bool) -> store.Claim:
        waited_for = {claimed.service for claimed in self.in_flight.values()}
        claimed = self._claim(doubtful, waited_for & self._silent)
        self.counts.due += len(claimed.tasks)
        return claimed

    def collect(self) -> None:
        """Take the answers that have come. Apply errors at once, since upstream may want no more calls."""
        for call in [call for call in self.in_flight if call.done()]:
            claimed, asked = self.in_flight.pop(call), call.result()
            if asked.error:
                if not asked.error.permanent:
                    self._silent.add(claimed.service)
                self._apply(claimed, asked)
            else:
                self._note_answer_of(claimed.service)
                self._suspicions[claimed.service].note_answer()
                self.answered.append((claimed, asked))

    def _note_answer_of(self, service: str) -> None:
        # While it was silent and another call to it was in flight, none of its due tasks could be claimed.
        if service in self._silent and pauses.ALL not in self._probed:
            self._turns.exhausted = False
        self._silent.discard(service)

    def note_progress(self) -> None:
        """Write the counts to the run's row, at most once for each call, while there is more to do."""
        if self.counts.calls != self._noted_calls and self.goes_on:
            self._noted_calls = self.counts.calls
            runs.note_progress(self._id, self._clock.now(), asdict(self.counts))

    def apply_next(self) -> None:
        """Apply the answer that has waited longest."""
        self._apply(*self.answered.popleft())

    def await_answer(self, timeout: float) -> None:
        """Wait until a call ends, for `timeout` seconds at most."""
        self._clock.wait(timeout, self.in_flight)

    def finish(self) -> None:
        """Await the calls in flight for STOP_WITHIN; release what has no answer by then."""
        for call in [call for call in self.in_flight if call.cancel()]:
            self._turns.put(self.in_flight.pop(call))
        deadline = self._clock.monotonic() + STOP_WITHIN.total_seconds()
        while self.in_flight and self._clock.monotonic() < deadline:
            self.await_answer(timeout=0.1)
            self.collect()
        while self.answered:
            self.apply_next()
        for claimed in (*self._turns.take_rest(), *self.in_flight.values()):
            store.release(claimed, self._clock.now())

    def cancel(self) -> None:
        """Drop the calls that have not begun. One that hangs after a stop ends with the process."""
        for call in self.in_flight:
            call.cancel()

    def _apply(self, claimed: store.Claim, asked: Asked) -> None:
        self.counts.calls += asked.calls
        if asked.error is None:
            self._join(claimed, asked, self._clock.now())
        else:
            self._apply_error(claimed, asked, asked.error, self._clock.now())

    def _apply_error(self, claimed: store.Claim, asked: Asked, error: UpstreamError, now: datetime) -> None:
        is_about_all = self._suspicions[claimed.service].is_about_all(claimed, error)
        if self._is_moot(claimed, error):
            store.release(claimed, now)
            return
        if error.scope in _HALVED and len(claimed.tasks) > 1 and not is_about_all:
            # Halve until the id that spoils the call, or whose task is too large, is alone in its call. Then
            # the error is about that id.
            self._turns.put(*claimed.halves())
            return
        self.counts.errors += 1
        self.counts.error = str(error)
        if error.stops_service:
            self._pause(claimed, error, now)
            return
        self._join(claimed, asked, now)
        if is_about_all:
            self._note_refusal_of_all(claimed.service, error, now)

    def _pause(self, claimed: store.Claim, error: UpstreamError, now: datetime) -> None:
        store.release(claimed, now)
        self._halted = self._halted or error.stops_all
        pauses.stop_after(error, claimed.service, now)
        if not error.stops_all:
            self._leave_out(claimed.service, now)

    def _note_refusal_of_all(self, service: str, error: UpstreamError, now: datetime) -> None:
        log.error(
            "Upstream refuses every look-up of %s, for a reason that its contract does not name.", service
        )
        pauses.stop_asking(str(error), now, retry_after=PAUSE_AFTER_UNKNOWN, service=service)
        self._leave_out(service, now)

    def _leave_out(self, service: str, now: datetime) -> None:
        """Ask nothing more about a service that is paused. Claims leave it out by themselves."""
        self._left_out.add(service)
        for claimed in self._turns.take_rest_of(service):
            store.release(claimed, now)

    def _is_moot(self, claimed: store.Claim, error: UpstreamError) -> bool:
        """Tell whether an error came of a call that was in flight when its service was paused."""
        return claimed.service in self._left_out and error.scope in _HALVED

    def _join(self, claimed: store.Claim, asked: Asked, now: datetime) -> None:
        has_access = not asked.error or asked.error.shows_access
        probed = self._probed & {claimed.service, pauses.ALL}
        if probed and has_access:
            self._probed -= probed
            self._left_out -= probed
            if pauses.resume_after_probe(sorted(probed), now):
                self._turns.exhausted = False
        answers = answers_of(claimed, asked, self._suspicions[claimed.service])
        self._log(answers)
        verdicts = [answer.verdict for answer in answers.values()]
        self.counts.asked += len(answers)
        self.counts.running += verdicts.count(PENDING)
        self.counts.absent += verdicts.count("absent")
        settled = store.apply(claimed, answers, self._id, asked.at, now, self._patience)
        self.counts.settled += settled
        self.counts.confirmed += sum(verdict in FINAL for verdict in verdicts) - settled

    def _log(self, answers: Mapping[str, Answer]) -> None:
        # Only what brings something: most look-ups find a task that still runs.
        for task_id, answer in answers.items():
            if answer.verdict in FINAL:
                told, fields = (task_id, answer.verdict, self._id), {"task": task_id, "run": self._id}
                log.info("Task %s: upstream says %s (run %d).", *told, extra=fields)
