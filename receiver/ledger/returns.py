"""Tells reconcilers that the receiver was away and has come back: callbacks and registrations may be lost.

See "Absences" in docs/design.md.
"""

from datetime import datetime, timedelta
from typing import Any

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.mending import absurd_lease, unleased
from receiver.ledger.models import KNOWN, OPEN, ReceiverReturn, Task, database
from receiver.ledger.timetable import APART, SOONEST

_ONLY = 1  # the id of the only row


def note_return() -> None:
    """Count a return of the receiver, or a person's wish that what was missed is looked for now."""
    once_more = {ReceiverReturn.times: ReceiverReturn.times + 1}
    with writing():
        ReceiverReturn.insert(id=_ONLY, times=1, followed=0).on_conflict(
            conflict_target=[ReceiverReturn.id], update=once_more
        ).execute()


def count_returns() -> int:
    """Return how often the receiver has come back so far."""
    with database.connection_context():
        return _times.scalar() or 0


def unfollowed() -> int | None:
    """Return how often the receiver has come back, if no discovery has followed the last time; else None."""
    with database.connection_context():
        times: int | None = _unfollowed.scalar()
    return times


def note_followed(times: int) -> None:
    """Note that what the receiver missed is found, up to so many returns."""
    with writing():
        ReceiverReturn.update(followed=times).where(ReceiverReturn.followed < times).execute()


def ask_early(now: datetime, most: int) -> int:
    """Make up to `most` open tasks due now: those that would be due soonest. Return how many.

    By the timetable they are the likeliest to have finished. Those that were asked about a moment ago are
    left out: they have nothing new.
    """
    with writing():
        return _ask_early.execute(now=now, most=most)


def _build_ask_early(now: Any, most: Any) -> Any:
    soonest = (
        Task.select(Task.id)
        .where(
            Task.next_lookup_at > now,
            Task.created_at <= now - SOONEST,
            Task.looked_at.is_null() | (Task.looked_at <= now - APART),
            unleased(now, absurd_lease(now, timedelta(0))),
            OPEN,
            KNOWN,
        )
        .order_by(Task.next_lookup_at)
        .limit(most)
    )
    if on_postgresql():
        # Skip locked rows, so that we never wait.
        soonest = soonest.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # stubs know bool only
    return Task.update(next_lookup_at=now).where(Task.id.in_(soonest))


_times = Query(lambda: ReceiverReturn.select(ReceiverReturn.times))
_unfollowed = Query(
    lambda: ReceiverReturn.select(ReceiverReturn.times).where(ReceiverReturn.times > ReceiverReturn.followed)
)
_ask_early = Query(_build_ask_early)
