"""Tells the customer's app: deals events to endpoints, sends what is due, and notes what came of it."""

import json
import logging
import math
import random
import threading
import traceback
import zlib
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Protocol

from receiver.clock import Clock
from receiver.config import Settings
from receiver.forward.retries import next_attempt
from receiver.forward.sender import Outcome, Request, Sender
from receiver.forward.signing import sign
from receiver.ledger import due_forwards, endpoints, forwards, resending
from receiver.ledger.dealing import READER, deal
from receiver.ledger.forwards import Attempted
from receiver.ledger.models import Forward
from receiver.redact import mask_tokens

log = logging.getLogger(__name__)

AT_ONCE = 64  # attempts in flight, of one process
_LOOK_EVERY_SECONDS = 0.25  # for new events, while attempts are in flight
_GATHER_SECONDS = 0.005  # attempts that end at about the same time are noted together
_STOP_WITHIN_SECONDS = 16.0  # an attempt takes 15 s at most
_WORDS_FOR = {"timeout": "no answer in time", "gone": "410 Gone", "forbidden": "not a public address"}


class Sends(Protocol):
    """What sends a request: a Sender, or a simulation's."""

    def send(self, request: Request) -> Outcome: ...


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
        self._sender = sender
        self._threads = threads or ThreadPoolExecutor(AT_ONCE, thread_name_prefix="forward")
        self._clock = clock
        self._rng = rng
        self._stop = stop
        self._in_flight: dict[Future[Attempted], Forward] = {}
        self._is_configured = False
        self._look_at = -math.inf  # monotonic

    def run(self, for_seconds: float = math.inf) -> None:
        """Deal what has happened and send what is due, until nothing is due and nothing in flight.

        After `for_seconds` nothing more is begun. What is in flight then is awaited.
        """
        until = self._clock.monotonic() + for_seconds
        if not self._is_configured:
            endpoints.configure(self._settings.forward_urls, self._clock.now())
            self._is_configured = True
        # After an error the database may not know yet what came of some attempts.
        if not self._in_flight and not due_forwards.is_anything_to_do(self._clock.now(), READER):
            return
        try:
            self._note_ended()
            while not self._is_to_end(until) and self._advance():
                pass
        finally:
            self._finish()

    def _is_to_end(self, until: float) -> bool:
        return self._stop.is_set() or self._clock.monotonic() >= until

    def _advance(self) -> bool:
        """Do what can be done now. Returns whether there is more."""
        now = self._clock.now()
        found = self._look(now)
        room = AT_ONCE - len(self._in_flight)
        claimed = forwards.claim(now, room) if room else []
        for forward in claimed:
            self._in_flight[self._threads.submit(self._attempt, forward)] = forward
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
        ended = [call for call in self._in_flight if call.done()]
        if ended:
            attempted = [call.result() for call in ended]
            for endpoint in forwards.note(attempted, self._clock.now()):
                log.warning("Endpoint %d is held (%s): %s", endpoint.id, endpoint.host, endpoint.failure)
            for one in attempted:
                _log(one)
            for call in ended:
                del self._in_flight[call]

    def _finish(self) -> None:
        """Release what was not begun, and await the attempts in flight."""
        waiting = [self._in_flight.pop(call) for call in list(self._in_flight) if call.cancel()]
        forwards.release(waiting, self._clock.now())
        until = self._clock.monotonic() + _STOP_WITHIN_SECONDS
        while self._in_flight and self._clock.monotonic() < until:
            self._clock.wait(_LOOK_EVERY_SECONDS, self._in_flight)
            self._note_ended()

    def _attempt(self, forward: Forward) -> Attempted:
        """Send a forward. Runs in a thread, without the ledger."""
        began_at, headers = self._clock.now(), dict[str, str]()
        url = str(forward.url or forward.endpoint.url)
        try:
            body = zlib.decompress(forward.body)
            headers = self._headers(forward, began_at, body)
            outcome = self._sender.send(Request(url, headers, body, may_be_private=forward.url is None))
        except Exception as problem:  # noqa: BLE001 - logged, with its frames
            outcome = _unexpected(forward, problem)
        return self._attempted(forward, began_at, url, headers, outcome)

    def _headers(self, forward: Forward, at: datetime, body: bytes) -> dict[str, str]:
        signed = sign(self._settings.forward_secrets, forward.message_id, at, body)
        return {"content-type": "application/json"} | signed

    def _attempted(
        self, forward: Forward, began_at: datetime, url: str, headers: dict[str, str], outcome: Outcome
    ) -> Attempted:
        cause, next_at, counted = None, None, forward.counted + 1
        if outcome.kind != "delivered":
            now = self._clock.now()
            since, held_for = forward.began_at or began_at, _held_for(forward, now)
            retry = next_attempt(outcome, forward.counted, since, now, held_for, self._rng)
            cause, next_at, counted = cause_of(outcome), retry.at, retry.counted
        return Attempted(
            forward=forward,
            began_at=began_at,
            took=outcome.took,
            url=mask_tokens(url),
            headers=json.dumps(headers),
            kind=outcome.kind,
            status=outcome.status,
            answer=outcome.answer,
            error=outcome.error,
            cause=cause,
            counted=counted,
            next_attempt_at=next_at,
        )


def _log(one: Attempted) -> None:
    forward = one.forward
    came = "told" if one.cause is None else f"not told: {one.cause}"
    fields = {"task": forward.task_id, "forward": forward.id, "endpoint": forward.endpoint.id}
    told = (forward.task_id, came, forward.id, forward.endpoint.id)
    log.info("Task %s: %s (forward %d, endpoint %d).", *told, extra=fields)


def _held_for(forward: Forward, now: datetime) -> timedelta:
    """Return how long the endpoint was held since the first attempt at a forward."""
    if forward.began_at is None:
        return timedelta(0)
    return timedelta(seconds=forward.endpoint.held_seconds_by(now) - forward.held_before)


def _unexpected(forward: Forward, problem: Exception) -> Outcome:
    """Return what came of an attempt that an error in our own code ended: it fails like any other."""
    kind = type(problem).__name__
    # Without its message, which may hold the URL or a secret.
    frames = "".join(traceback.format_tb(problem.__traceback__))
    log.error("An attempt at forward %d ended with an unexpected %s:\n%s", forward.id, kind, frames)
    return Outcome(None, b"", f"unexpected {kind}", timedelta(0), None, "network")


def cause_of(outcome: Outcome) -> str:
    """Return what an attempt failed of, in a few words that group such failures."""
    if outcome.kind in _WORDS_FOR:
        return _WORDS_FOR[outcome.kind]
    return f"HTTP {outcome.status}" if outcome.status is not None else outcome.error or "network"
