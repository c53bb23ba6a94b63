"""Tells the customer's app: deals events to endpoints, sends what is due, and notes what came of it."""

import logging
import math
import random
import threading
from collections import Counter, defaultdict
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from receiver.clock import Clock
from receiver.config import Settings
from receiver.forward.attempt import Sends
from receiver.forward.sender import ATTEMPT_WITHIN_SECONDS, Sender
from receiver.ledger import due_forwards, endpoints, forwards, resending
from receiver.ledger.dealing import READER, deal
from receiver.ledger.due_forwards import Chain
from receiver.ledger.forwards import Attempted
from reconcile.attempts import Attempts

log = logging.getLogger(__name__)

AT_ONCE = 64  # attempts in flight, of one process
_LONGEST_CHAIN = 16
_CHAIN_WITHIN_SECONDS = 0.25  # no attempt of a chain begins later: others wait for its place
_LOOK_EVERY_SECONDS = 0.25  # for new events, while attempts are in flight
_GATHER_SECONDS = 0.005  # chains that end at about the same time are noted together
_ATTEMPT_WITHIN = timedelta(seconds=ATTEMPT_WITHIN_SECONDS)
_STOP_WITHIN_SECONDS = ATTEMPT_WITHIN_SECONDS + 1


@dataclass(slots=True)
class _Sending:
    """A chain in flight. Its thread adds to `attempted`."""

    chain: Chain
    attempted: list[Attempted] = field(default_factory=list)
    noted: int = 0  # how many of the attempts the ledger knows

    @property
    def rest(self) -> Chain:
        return self.chain[len(self.attempted) :]


def sender_for(settings: Settings) -> Sender:
    """Return what sends to the customer's app."""
    return Sender(allow_private_urls=settings.forward_allow_private, connections=AT_ONCE)


class Forwarder:
    """Tells the customer's app until `stop` is set. One thread at a time may run it."""

    def __init__(
        self,
        settings: Settings,
        sender: Sends,
        clock: Clock,
        rng: random.Random,
        stop: threading.Event,
        threads: Executor | None = None,
    ) -> None:
        self._settings = settings
        self._attempts = Attempts(settings.forward_secrets, sender, clock, rng)
        self._threads = threads or ThreadPoolExecutor(AT_ONCE, thread_name_prefix="forward")
        self._clock = clock
        self._stop = stop
        self._until = math.inf  # monotonic
        self._in_flight: dict[Future[None], _Sending] = {}
        # By endpoint. They double while all of a chain is delivered in time, and else shrink to what was.
        self._lengths: dict[int, int] = defaultdict(lambda: 1)
        self._begun: Counter[int] = Counter()  # chains by endpoint
        self._is_configured = False
        self._look_at = -math.inf  # monotonic

    def run(self, for_seconds: float = math.inf) -> None:
        """Deal what has happened and send what is due, until nothing is due and nothing in flight.

        After `for_seconds` nothing more is begun. What is in flight then is awaited.
        """
        self._until = self._clock.monotonic() + for_seconds
        if not self._is_configured:
            endpoints.configure(self._settings.forward_urls, self._clock.now())
            self._is_configured = True
        # After an error the database may not know yet what came of some attempts.
        if not self._in_flight and not due_forwards.is_anything_to_do(self._clock.now(), READER):
            return
        try:
            self._note_ended()
            while not self._is_to_end() and self._advance():
                pass
        finally:
            self._finish()

    def _is_to_end(self) -> bool:
        return self._stop.is_set() or self._clock.monotonic() >= self._until

    def _advance(self) -> bool:
        """Do what can be done now. Returns whether there is more."""
        now = self._clock.now()
        found = self._look(now)
        room = AT_ONCE - len(self._in_flight)
        claimed = forwards.claim(now, room, self._lengths, self._begun) if room else []
        for chain in claimed:
            sending = _Sending(chain)
            self._in_flight[self._threads.submit(self._send, sending)] = sending
            self._begun[chain[0].endpoint.id] += 1
        if self._in_flight:
            self._clock.wait(_LOOK_EVERY_SECONDS, self._in_flight)
            self._clock.wait(_GATHER_SECONDS)
            self._note_ended()
        return bool(found or claimed or self._in_flight)

    def _look(self, now: datetime) -> bool:
        """Deal what has happened, and go on with sending again. Returns whether there was anything.

        While attempts are in flight and nothing happens, it looks four times a second.
        """
        if self._in_flight and self._clock.monotonic() < self._look_at:
            return False
        resent = resending.advance(now)
        found = bool(deal(now, self._settings.forward_when)) or resent
        self._look_at = self._clock.monotonic() + (0 if found else _LOOK_EVERY_SECONDS)
        return found

    def _note_ended(self) -> None:
        """Note the attempts that have ended, and release what the chains that have ended leave unsent."""
        ended = [call for call in self._in_flight if call.done()]
        self._note_attempts()
        rest = [forward for call in ended for forward in self._in_flight[call].rest]
        if rest:
            forwards.release(rest, self._clock.now())
        for call in ended:
            self._learn_length(self._in_flight.pop(call))
            if not call.cancelled():
                call.result()  # raises a bug of ours: whatever an attempt ends with is its outcome

    def _note_attempts(self) -> None:
        new = [(sending, sending.attempted[sending.noted :]) for sending in self._in_flight.values()]
        attempted = [one for _, some in new for one in some]
        if attempted:
            for endpoint in forwards.note(attempted, self._clock.now()):
                log.warning("Endpoint %d is held (%s): %s", endpoint.id, endpoint.host, endpoint.failure)
            for one in attempted:
                _log(one)
            for sending, some in new:
                sending.noted += len(some)

    def _learn_length(self, sending: _Sending) -> None:
        delivered = sum(one.cause is None for one in sending.attempted)
        endpoint = sending.chain[0].endpoint.id
        is_whole = delivered == len(sending.chain)
        length = max(self._lengths[endpoint], 2 * delivered) if is_whole else delivered
        self._lengths[endpoint] = min(max(length, 1), _LONGEST_CHAIN)

    def _finish(self) -> None:
        """Release what was not begun, and await the attempts in flight."""
        for call in list(self._in_flight):
            call.cancel()
        until = self._clock.monotonic() + _STOP_WITHIN_SECONDS
        self._note_ended()
        while self._in_flight and self._clock.monotonic() < until:
            self._clock.wait(_LOOK_EVERY_SECONDS, self._in_flight)
            self._note_ended()

    def _send(self, sending: _Sending) -> None:
        """Send a chain until an attempt fails or the time is up. Runs in a thread, without the ledger."""
        until = self._clock.monotonic() + _CHAIN_WITHIN_SECONDS
        for forward in sending.chain:
            assert forward.leased_until is not None
            if forward.leased_until < self._clock.now() + _ATTEMPT_WITHIN:
                return  # the process stood still: another may have it before the attempt ends
            attempted = self._attempts.make(forward)
            sending.attempted.append(attempted)
            if attempted.cause is not None or self._clock.monotonic() >= until or self._is_to_end():
                return


def _log(one: Attempted) -> None:
    forward = one.forward
    came = "told" if one.cause is None else f"not told: {one.cause}"
    fields = {"task": forward.task_id, "forward": forward.id, "endpoint": forward.endpoint.id}
    told = (forward.task_id, came, forward.id, forward.endpoint.id)
    log.info("Task %s: %s (forward %d, endpoint %d).", *told, extra=fields)
