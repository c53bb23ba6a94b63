"""Incidents of this process, for the time in which the ledger that keeps them cannot be used."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.incidents import LEASE, LONGEST_WAIT, OVER_AFTER, may_try
from receiver.web.watch.messages import Message


@dataclass(slots=True)
class Remembered:
    """One incident, as `ledger.incidents` keeps it in a row."""

    code: str
    message: str
    began_at: datetime
    seen_at: datetime
    told: bool = False
    over_at: datetime | None = None
    next_try_at: datetime | None = None
    tries: int = 0

    def as_message(self) -> Message:
        return Message(self.code, self.message, self.began_at, self.over_at)


class Memory:
    """Keeps incidents by the rules of `ledger.incidents`. One thread may use it."""

    def __init__(self) -> None:
        self._open: dict[str, Remembered] = {}

    def note_seen(self, present: Mapping[str, str], now: datetime) -> None:
        """Note which troubles there are now, by code. Those that are gone end."""
        for code, message in present.items():
            one = self._open.setdefault(code, Remembered(code, message, now, now))
            one.seen_at, one.message, one.over_at = now, message, None
            one.began_at = min(one.began_at, now)  # the clock may have been ahead
        for one in [one for one in self._open.values() if one.code not in present]:
            if not one.told:
                del self._open[one.code]
            elif one.over_at is None and now - one.seen_at >= OVER_AFTER:
                one.over_at, one.tries, one.next_try_at = now, 0, None

    def among(self, codes: Collection[str]) -> list[Remembered]:
        """Return the incidents of these kinds."""
        return [one for one in self._open.values() if one.code in codes]

    def forget(self, one: Remembered) -> None:
        """Forget an incident: it is over, or the ledger keeps it now."""
        self._open.pop(one.code, None)

    def claim(self, waits: Mapping[str, timedelta], now: datetime) -> list[Remembered]:
        """Return what is to be told now."""
        due = [one for one in self._open.values() if _is_due(one, waits, now)]
        for one in due:
            one.next_try_at = now + min(LEASE * 2 ** min(one.tries, 10), LONGEST_WAIT)
            one.tries += 1
        return due

    def note_told(self, one: Remembered) -> None:
        """Note that somebody was told."""
        if one.over_at is not None:
            self.forget(one)
        one.told, one.tries, one.next_try_at = True, 0, None


def _is_due(one: Remembered, waits: Mapping[str, timedelta], now: datetime) -> bool:
    if not may_try(one.next_try_at, now):
        return False
    if one.over_at is not None:
        return True
    wait = waits.get(one.code)
    return not one.told and wait is not None and now - one.began_at >= wait
