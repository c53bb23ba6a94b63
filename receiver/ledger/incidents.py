"""Troubles that last: each is a row, so that of any number of processes one tells of it, once.

An incident begins when a trouble is first seen, and is over when nobody has seen it for OVER_AFTER. A process
claims what is to be told by compare-and-set, posts it without a transaction, and notes what came of that.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from peewee import Case

from receiver.clock import SKEW
from receiver.ledger.engine.db import writing
from receiver.ledger.models import Incident, database

OVER_AFTER = timedelta(minutes=1)
# If the process that claimed it dies, another tells of it after this time.
LEASE = timedelta(minutes=1)
LONGEST_WAIT = timedelta(minutes=15)
NOT_TOLD_AFTER = timedelta(days=1)  # that something is over
_SEEN_EVERY = timedelta(seconds=5)


def note_seen(present: Mapping[str, str], now: datetime) -> None:
    """Note which troubles there are now, by code, with their messages. Those that are gone end."""
    is_open = Incident.over_at.is_null()
    with database.connection_context():
        known = {row.code: row for row in Incident.select().where(is_open)}
    with writing():
        for code, message in sorted(present.items()):
            row = known.get(code)
            if row is None:
                Incident.insert(
                    code=code, message=message, began_at=now, seen_at=now
                ).on_conflict_ignore().execute()
            elif abs(now - row.seen_at) >= _SEEN_EVERY:
                Incident.update(seen_at=now, message=message).where(Incident.id == row.id, is_open).execute()
                # The clock that dated it was ahead: it would not seem to last.
                Incident.update(began_at=now).where(
                    Incident.id == row.id, is_open, Incident.began_at > now + SKEW
                ).execute()
    gone = [row.id for row in known.values() if row.code not in present]
    if gone:
        _end(gone, now)


def _end(ids: list[int], now: datetime) -> None:
    # A wrong clock may have dated the last sight.
    unseen = (Incident.seen_at <= now - OVER_AFTER) | (Incident.seen_at > now + SKEW)
    # What nobody was told of is not told to be over.
    closed_at = Case(None, [(Incident.told_at.is_null(), now)], None)
    with writing():
        Incident.update(over_at=now, closed_at=closed_at, next_try_at=None, tries=0).where(
            Incident.id.in_(ids), Incident.over_at.is_null(), unseen
        ).execute()


def take_over(code: str, began_at: datetime, told_at: datetime | None) -> None:
    """Note when an open incident that a process has remembered began, and when somebody was told of it."""
    is_open = (Incident.code == code) & Incident.over_at.is_null()
    with writing():
        Incident.update(began_at=began_at).where(is_open, Incident.began_at > began_at).execute()
        if told_at is not None:
            told = Incident.update(told_at=told_at, tries=0, next_try_at=None)
            told.where(is_open, Incident.told_at.is_null()).execute()


def told_codes() -> set[str]:
    """Return the codes of the incidents that somebody was told of and that are not over."""
    told = Incident.select(Incident.code).where(Incident.over_at.is_null(), Incident.told_at.is_null(False))
    with database.connection_context():
        return {row.code for row in told}


def claim(waits: Mapping[str, timedelta], now: datetime) -> Iterator[Incident]:
    """Claim the incidents that somebody is to be told of: that they began, or that they are over.

    `waits` is how long an incident must last before it is told, by code. Each is claimed when it is yielded:
    telling of the one before may take long.
    """
    with database.connection_context():
        rows = list(Incident.select().where(Incident.closed_at.is_null()).order_by(Incident.id))
    for row in rows:
        is_to_tell = row.told_at is None or row.over_at is not None
        if may_try(row.next_try_at, now) and is_to_tell and _has_lasted(row, waits) and _claim_one(row, now):
            yield row


def may_try(next_try_at: datetime | None, now: datetime) -> bool:
    """Tell whether it is time for the next try to tell of an incident.

    A time beyond any wait was set by a clock that was ahead. It does not count.
    """
    return next_try_at is None or not now < next_try_at <= now + 2 * LONGEST_WAIT


def _has_lasted(row: Incident, waits: Mapping[str, timedelta]) -> bool:
    # Not by the time since it began: one that was seen for a moment stays open for OVER_AFTER.
    wait = waits.get(row.code)
    return row.over_at is not None or (wait is not None and row.seen_at - row.began_at >= wait)


def _claim_one(row: Incident, now: datetime) -> bool:
    # Compare-and-set: of two processes that read the same number of tries, one wins.
    same = (Incident.id == row.id) & (Incident.tries == row.tries) & Incident.closed_at.is_null()
    same &= Incident.over_at.is_null(row.over_at is None)
    wait = min(LEASE * 2 ** min(row.tries, 10), LONGEST_WAIT)
    with writing():
        return bool(Incident.update(tries=row.tries + 1, next_try_at=now + wait).where(same).execute())


def note_told(incident: Incident, now: datetime) -> None:
    """Note that somebody was told of an incident, as it was claimed."""
    here = Incident.id == incident.id
    with writing():
        if incident.over_at is None:
            # It may have ended meanwhile, as if nobody had been told. Then it is told to be over.
            told = Incident.update(told_at=now, tries=0, next_try_at=None, closed_at=None)
            told.where(here).execute()
        else:
            Incident.update(closed_at=now).where(here).execute()


def note_untold(incident: Incident, now: datetime) -> None:
    """Note that telling has failed. It is tried again later; that something is over, for a day."""
    if incident.over_at is not None and incident.over_at < now - NOT_TOLD_AFTER:
        note_told(incident, now)
