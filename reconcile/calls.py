"""Calls to upstream, in threads: a look-up of a batch, and a page of the account's list."""

import logging
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from receiver.clock import Clock
from receiver.upstream.client import Upstream, UpstreamError
from receiver.upstream.services import Lookups, Service
from reconcile.rate_limit import RateLimiter

log = logging.getLogger(__name__)

STOP_WITHIN = timedelta(seconds=10)  # a stop awaits the calls in flight for so long


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a look-up: items, or an error. `calls` is how many pages were asked for."""

    at: datetime
    items: list[Any]
    error: UpstreamError | None = None
    calls: int = 1


class Pages:
    """The pages of one look-up: each is a call to upstream, and waits for its place in the rate limit."""

    def __init__(self, limiter: RateLimiter, clock: Clock) -> None:
        self.asked = 1  # the first one's place is taken before
        self._limiter = limiter
        self._clock = clock

    def take_place(self, seconds_left: float) -> None:
        """Wait for the next page's place. Raises UpstreamError when no place comes in the time left."""
        ends_at = self._clock.monotonic() + seconds_left
        while not self._limiter.take():
            if self._clock.monotonic() > ends_at:
                raise UpstreamError("RECONCILE_MAX_RATE left no time for its next page", permanent=False)
            self._clock.wait(self._limiter.seconds_left())
        self.asked += 1


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls upstream in threads. Everything in here can be a simulation's; the clock is the one for all."""

    upstream: Upstream
    threads: Executor
    limiter: RateLimiter
    clock: Clock

    def look_up(self, service: Service, ids: list[str]) -> Future[Asked]:
        """Begin to ask about tasks of a service. An error concerns this call alone: the result holds it."""
        return self.threads.submit(self._look_up, service, ids)

    def list_recent(self, service: Service, **question: Any) -> Future[list[Any]]:
        """Begin to ask for a page of the account's tasks of a service. The result may be an UpstreamError."""
        return self.threads.submit(_carefully, partial(self.upstream.list_recent, service, **question))

    def _look_up(self, service: Service, ids: list[str]) -> Asked:
        at, pages = self.clock.now(), Pages(self.limiter, self.clock)
        if service.lookups is Lookups.SINGLE:
            call = partial(self.upstream.retrieve, service, *ids)
        else:
            call = partial(self.upstream.retrieve_batch, service, ids, pages.take_place)
        try:
            items = _carefully(call)
            return Asked(at, items, calls=pages.asked)
        except UpstreamError as error:
            return Asked(at, [], error, calls=pages.asked)


def call_threads(number: int) -> Executor:
    """Return so many threads to call upstream in. None is started before its first call."""
    return ThreadPoolExecutor(number, thread_name_prefix="upstream")


def _carefully(call: Callable[[], list[Any]]) -> list[Any]:
    """Make a call. Raises UpstreamError for whatever goes wrong, be it an error in our own code."""
    try:
        return call()
    except UpstreamError:
        raise
    except Exception as problem:  # noqa: BLE001 - logged, with its frames
        kind = type(problem).__name__
        # Without its message, which may hold a token: http.client quotes a header that it refuses.
        frames = "".join(traceback.format_tb(problem.__traceback__))
        log.error("A call to upstream ended with an unexpected %s:\n%s", kind, frames)
        raise UpstreamError(f"the call ended with an unexpected {kind}", permanent=False) from None
