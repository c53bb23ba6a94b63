"""The part of upstream's list that a discovery reads, and how far it has come. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from receiver.upstream.verdicts import read_moment

_SECOND = timedelta(seconds=1)
# Upstream's clock may be ahead of `now` by less than this. A time further ahead is wrong.
_CREDIBLE = timedelta(days=1)


@dataclass(slots=True)
class Window:
    """The tasks submitted from `since` to `end`.

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
