"""Makes single attempts at claimed forwards, in threads and without the ledger."""

import json
import logging
import random
import traceback
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from receiver.clock import Clock
from receiver.forward.attempt import Outcome, Request, Sends
from receiver.forward.retries import next_attempt
from receiver.forward.signing import sign
from receiver.ledger.forwards import Attempted
from receiver.ledger.models import Forward
from receiver.redact import mask_tokens

log = logging.getLogger(__name__)

_WORDS_FOR = {"timeout": "no answer in time", "gone": "410 Gone", "forbidden": "not a public address"}


class Attempts:
    """Signs forwards and sends them. Safe to share between threads."""

    def __init__(self, secrets: Sequence[str], sender: Sends, clock: Clock, rng: random.Random) -> None:
        self._secrets = secrets
        self._sender = sender
        self._clock = clock
        self._rng = rng

    def make(self, forward: Forward) -> Attempted:
        """Send a forward once, and return what came of it."""
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
        signed = sign(self._secrets, forward.message_id, at, body)
        return {"content-type": "application/json"} | signed

    def _attempted(
        self, forward: Forward, began_at: datetime, url: str, headers: dict[str, str], outcome: Outcome
    ) -> Attempted:
        cause, next_at, counted = None, None, forward.counted + 1
        if outcome.kind != "delivered":
            now = self._clock.now()
            tried_for = now - (forward.began_at or began_at) - _held_for(forward, now)
            attempts = forward.attempts + 1
            retry = next_attempt(outcome, attempts, forward.counted, tried_for, now, self._rng)
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
