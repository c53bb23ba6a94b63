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
from receiver.ledger.evidence import Discovered
from receiver.ledger.models import Pause
from receiver.ledger.paces import Paces
from receiver.upstream.client import ErrorScope, UpstreamError
from receiver.upstream.results import Unreadable, read_item
from receiver.upstream.services import Service
from receiver.upstream.verdicts import read_moment
from reconcile.asking import STOP_WITHIN
from reconcile.calls import Caller
from reconcile.deployment import Deployment

log = logging.getLogger(__name__)

PAGE_SIZE = 50
PAGES_PER_RUN = 20
# A run begins so many tasks before the place where the last one ended: tasks that upstream deleted meanwhile
# have moved the others up. Less than PAGES_PER_RUN: otherwise a discovery would make no progress if upstream
# gives one task a page.
_STEP_BACK = 10
_SECOND = timedelta(seconds=1)
# Upstream's clock may be ahead of ours by less than this. A time further ahead is wrong.
_CREDIBLE = timedelta(days=1)


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


@dataclass(slots=True)
class _Window:
    """The part of upstream's list that a discovery reads: tasks submitted from `since` to `end`.

    The end is the newest task of the first page whose time is not in the future. A task with a wrong time
    must not become the end: discovery would see nothing until that time. The end then stays where it is, so
    that tasks submitted meanwhile do not shift the pages behind the offset.
    """

    since: datetime
    end: datetime | None = None
    listed: int = 0
    # If our clock is slow, all new tasks seem to be from the future. They are read all the same.
    newest: datetime | None = None
    listed_after_end: int = 0

    @property
    def until(self) -> datetime | None:
        """Return the latest time to list, None before the first page. Upstream may round it down."""
        last = self.newest or self.end
        return last + _SECOND if last else None

    @property
    def offset(self) -> int:
        return self.listed + self.listed_after_end

    def advance(self, page: list[Any], now: datetime) -> list[datetime]:
        """Go past a page. Return when its tasks were submitted, newest first, as far as upstream tells."""
        moments = (read_moment(item.get("created_at")) for item in page if isinstance(item, dict))
        submitted = sorted((moment for moment in moments if moment), reverse=True)
        if self.end is None and page:
            self.end = next((moment for moment in submitted if moment <= now), now)
            self.newest = next((moment for moment in submitted if now < moment < now + _CREDIBLE), None)
        # Counted apart: a later run that continues this window does not list the tasks after its end.
        after_end = 0
        if self.end and self.newest:
            after_end = sum(moment > self.end + _SECOND for moment in submitted)
        self.listed += len(page) - after_end
        self.listed_after_end += after_end
        return submitted


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
        now, found = self._clock.now(), Found()
        turn = discoveries.take_turn(self._service.name, now, self._settings.reconcile_give_up_after)
        if turn is None:
            return found
        found.is_whole = turn.window_end is None
        window = _Window(turn.covered_to, turn.window_end, max(turn.listed - _STEP_BACK, 0))
        try:
            for end in self._walk(window, found):
                goes_on = discoveries.note_progress(turn, end, window.listed, self._clock.now())
                if not goes_on or found.pages >= PAGES_PER_RUN:
                    break
            if found.finished:
                discoveries.finish(turn, window.end, self._clock.now())
        finally:
            discoveries.release(turn)
        return found

    def run_since(self, since: datetime, on_page: Callable[[Found], None]) -> Found:
        """Read everything submitted since a moment. This does not change where `run` continues."""
        found = Found()
        for _ in self._walk(_Window(since), found):
            on_page(found)
        return found

    def _walk(self, window: _Window, found: Found) -> Iterator[datetime]:
        """Adopt page after page; yield the window's end after each that is not the last."""
        before: list[Any] = []
        while (page := self._ask(window, found)) is not None:
            submitted = self._adopt(page, window, found)
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

    def _ask(self, window: _Window, found: Found) -> list[Any] | None:
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

    def _call(self, window: _Window) -> list[Any]:
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

    def _adopt(self, page: list[Any], window: _Window, found: Found) -> list[datetime]:
        now = self._clock.now()
        submitted = window.advance(page, now)
        ours = [one for item in page if (one := self._read(item, window.since))]
        found.pages += 1
        found.seen += len(page)
        found.ours += len({one.result.task_id for one in ours})
        if submitted:
            found.reached = submitted[-1]
        if ours:
            found.adopted += store.adopt(ours, now, timetable=self._paces.timetable)
        return submitted

    def _read(self, item: Any, since: datetime) -> Discovered | None:
        ref = self._deployment.ref_in(item)
        if ref is None:
            return None
        try:
            result = read_item(item)  # it masks the token that the callback URL holds
        except Unreadable:
            return None
        is_older = result.submitted_at is not None and result.submitted_at < since
        return None if is_older else Discovered(result, self._service.name, ref)

    def _note_error(self, error: UpstreamError, found: Found) -> None:
        found.error = str(error)
        if error.stops_all:
            is_of_account = error.scope is ErrorScope.ACCOUNT
            pauses.stop_asking(
                str(error), self._clock.now(), account=is_of_account, retry_after=error.retry_after
            )
        elif error.scope is ErrorScope.SERVICE:
            found.paused_itself = True
            pauses.stop_asking(str(error), self._clock.now(), account=True, service=self._service.name)
        else:
            log.warning("Discovery goes on later: %s", error)


def _names(page: list[Any]) -> list[Any]:
    return [item.get("id") if isinstance(item, dict) else item for item in page]
