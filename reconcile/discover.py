"""One discovery: list a service's recent tasks and adopt ours, so that nobody must register them."""

import logging
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from receiver.config import Settings, SettingsError
from receiver.ledger import discoveries, pauses, store
from receiver.ledger.models import Pause
from receiver.ledger.paces import Paces
from receiver.upstream.client import ErrorScope, UpstreamError
from receiver.upstream.services import Service
from reconcile.calls import STOP_WITHIN, Caller
from reconcile.deployment import Deployment
from reconcile.window import Window

log = logging.getLogger(__name__)

PAGE_SIZE = 50
PAGES_PER_RUN = 20
# A run begins so many tasks before the place where the last one ended: tasks that upstream deleted meanwhile
# have moved the others up. Less than PAGES_PER_RUN: otherwise a discovery would make no progress if upstream
# gives one task a page.
_STEP_BACK = 10


@dataclass(slots=True)
class Found:
    """Counts of a discovery; all except `pages` are of tasks. `reached` is when the oldest was submitted."""

    seen: int = 0
    ours: int = 0
    adopted: int = 0
    pages: int = 0
    reached: datetime | None = None
    is_whole: bool = False  # it began anew, not where the last one ended
    finished: bool = False  # all is seen
    stopped: bool = False
    paused_itself: bool = False  # upstream may be asked about other services, and not about this one
    error: str | None = None

    @property
    def has_more(self) -> bool:
        """Whether it ended only because of PAGES_PER_RUN, so that the next one should start soon."""
        return self.pages >= PAGES_PER_RUN and not (self.finished or self.stopped or self.error)

    def __str__(self) -> str:
        line = f"{self.seen} seen, {self.ours} ours, {self.adopted} adopted"
        line += "; stopped before the end" if self.stopped else ""
        return f"{line}; last error: {self.error}" if self.error else line


class Discoverer:
    """Finds our tasks in upstream's list of one service, until `stop` is set. Not for two threads at once."""

    def __init__(
        self, settings: Settings, caller: Caller, paces: Paces, service: Service, stop: threading.Event
    ) -> None:
        if settings.public_url is None:
            raise SettingsError(
                "No tasks can be discovered: PUBLIC_URL is missing. It is this deployment's address, like"
                " https://backstop.example.com; tasks whose callback_url points there are ours."
            )
        self._settings = settings
        self._caller = caller
        self._paces = paces
        self._service = service
        self._clock, self._limiter = caller.clock, caller.limiter
        self._stop = stop
        self._deployment = Deployment(settings.public_url)
        self._page_size = PAGE_SIZE  # smaller once a page was too large

    def run(self) -> Found:
        """Continue where the last run ended, for PAGES_PER_RUN pages at most, and return what came of it."""
        found, look_back = Found(), self._settings.reconcile_give_up_after
        turn = discoveries.take_turn(self._service.name, self._clock.now(), self._upstream_now(), look_back)
        if turn is None:
            return found
        found.is_whole = turn.window_end is None
        window = Window(turn.covered_to, turn.window_end, max(turn.listed - _STEP_BACK, 0))
        try:
            for end in self._walk(window, found, self._deleted_until):
                goes_on = discoveries.note_progress(turn, end, window.listed, self._clock.now())
                if not goes_on or found.pages >= PAGES_PER_RUN:
                    break
            if found.finished:
                discoveries.finish(turn, window.end, self._clock.now())
        finally:
            discoveries.release(turn)
        return found

    def _deleted_until(self) -> datetime:
        """Return until when settled tasks have been deleted: to find one again would tell the app again."""
        retention = self._settings.task_retention
        return datetime.min if retention is None else self._upstream_now() - retention

    def _upstream_now(self) -> datetime:
        """Return the time by upstream's clock, which dates its tasks; by ours where it is not told."""
        return self._clock.now() - (self._caller.upstream.compare_clocks() or timedelta(0))

    def run_since(self, since: datetime, on_page: Callable[[Found], None]) -> Found:
        """Read everything submitted since a moment. This does not change where `run` continues."""
        found = Found()
        for _ in self._walk(Window(since), found, lambda: since):
            on_page(found)
        return found

    def _walk(self, window: Window, found: Found, adopted_from: Callable[[], datetime]) -> Iterator[datetime]:
        """Adopt page after page; yield the window's end after each that is not the last.

        No task is adopted that was submitted before `adopted_from`, which is asked once a page is there.
        """
        before: list[Any] = []
        while (page := self._ask(window, found)) is not None:
            submitted = self._adopt(page, window, found, max(window.since, adopted_from()))
            # A page that is not full is not the end: upstream may give fewer tasks than it is asked for. It
            # may also ignore `since`: once a whole page is older, everything that follows is older too.
            if not page or (submitted and submitted[0] < window.since):
                found.finished = True
                return
            if (names := _names(page)) == before:
                found.error = "upstream gives the same page again"
                log.warning("Discovery ends early: %s", found.error)
                return
            before = names
            assert window.end is not None  # there was a page
            yield window.end

    def _ask(self, window: Window, found: Found) -> list[Any] | None:
        """Return the next page, or None if none can be had now: `found` says why."""
        while not self._stop.is_set() and not self._limiter.take():
            self._clock.wait(self._limiter.seconds_left())
        if self._stop.is_set():
            found.stopped = True
            return None
        now = self._clock.now()
        pause = pauses.current_pause(now, self._service.name)
        # When nothing is due, no run probes. Then only a discovery can find out that upstream answers again.
        if pause and not (pause.account and pauses.take_probe(now, pause.service)):
            found.paused_itself = pause.service != pauses.ALL
            found.error = f"asking is paused: {pause.reason}"
            return None
        try:
            page = self._call(window)
        except UpstreamError as error:
            self._resume(pause, error.shows_access)
            if error.scope is ErrorScope.SIZE and self._page_size > 1:
                self._page_size = max(self._page_size // 2, 1)
                return self._ask(window, found)
            self._note_error(error, found)
            return None
        self._resume(pause, True)
        self._page_size = min(self._page_size * 2, PAGE_SIZE)
        return page

    def _resume(self, pause: Pause | None, has_access: bool) -> None:
        if pause and has_access:
            # A pause of all and one of this service may have been in force.
            pauses.resume_after_probe([pause.service, self._service.name], self._clock.now())

    def _call(self, window: Window) -> list[Any]:
        call = self._caller.list_recent(
            self._service,
            since=window.since,
            until=window.until,
            limit=self._page_size,
            offset=window.offset,
        )
        ends_at = math.inf  # monotonic
        while not call.done():
            self._clock.wait(0.1, [call])
            if self._stop.is_set():
                ends_at = min(ends_at, self._clock.monotonic() + STOP_WITHIN.total_seconds())
            if self._clock.monotonic() > ends_at:
                raise UpstreamError("no answer before the stop", permanent=False)
        return call.result()

    def _adopt(self, page: list[Any], window: Window, found: Found, since: datetime) -> list[datetime]:
        now = self._clock.now()
        submitted = window.advance(page, self._upstream_now())
        ours = self._deployment.ours_in(page, self._service.name, since)
        found.pages += 1
        found.seen += len(page)
        found.ours += len({one.result.task_id for one in ours})
        if submitted:
            found.reached = submitted[-1]
        if ours:
            found.adopted += store.adopt(ours, now, timetable=self._paces.timetable)
        return submitted

    def _note_error(self, error: UpstreamError, found: Found) -> None:
        found.error = str(error)
        if error.stops_service:
            found.paused_itself = not error.stops_all
            pauses.stop_after(error, self._service.name, self._clock.now())
        else:
            log.warning("Discovery goes on later: %s", error)


def _names(page: list[Any]) -> list[Any]:
    return [item.get("id") if isinstance(item, dict) else item for item in page]
