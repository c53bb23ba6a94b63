"""Fetches HEARTBEAT_URL after good runs, so that a monitor elsewhere notices when they stop."""

import logging
import math
import threading

from receiver.clock import Clock
from receiver.forward.attempt import Request, Sends

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


class Heartbeat:
    """Fetches a URL at most once in EVERY_SECONDS, in a thread of its own. Without a URL it does nothing."""

    def __init__(self, url: str | None, sender: Sends, clock: Clock) -> None:
        self._url = url
        self._sender = sender
        self._clock = clock
        self._beat_at = -math.inf  # monotonic
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """Begin to fetch the URL, if that is due and no earlier fetch is still in progress."""
        now = self._clock.monotonic()
        if self._url is None or now - self._beat_at < EVERY_SECONDS:
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._beat_at = now
        self._thread = threading.Thread(target=self._fetch, args=(self._url,), name="heartbeat", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until a fetch in progress has ended, within the time that the sender gives it."""
        if self._thread is not None:
            self._thread.join()

    def _fetch(self, url: str) -> None:
        try:
            outcome = self._sender.send(Request(url, {}, b"", may_be_private=True, method="GET"))
        except Exception as problem:  # noqa: BLE001 - logged, without a message, which may hold the URL
            log.warning("HEARTBEAT_URL could not be fetched: %s", type(problem).__name__)
            return
        if outcome.kind != "delivered":
            why = outcome.error or f"it answered {outcome.status}"
            log.warning("HEARTBEAT_URL could not be fetched: %s", why)
