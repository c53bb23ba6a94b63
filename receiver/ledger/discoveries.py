"""The one row of how far discovery has come: any number of reconcilers share it, one at a time goes on.

See "Leases" in docs/design.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import Case

from receiver.clock import SKEW
from receiver.ledger.engine.db import writing
from receiver.ledger.models import Discovery
from receiver.upstream import services

LEASE = timedelta(minutes=2)
# Tasks may appear in upstream's list a little later than they were submitted.
OVERLAP = timedelta(minutes=5)


@dataclass(slots=True)
class Turn:
    """The discovery, ours to go on with until `leased_until`; the other fields are those of the row."""

    covered_to: datetime
    window_end: datetime | None
    listed: int
    leased_until: datetime


def take_turn(now: datetime, look_back: timedelta) -> Turn | None:
    """Lease the discovery; None while somebody else has it. The first ever begins `look_back` ago.

    So does one whose row is ahead of the clock: until then nothing would be seen.
    """
    lapsed = Discovery.leased_until <= now
    # No lease is so long: the clock stood wrong when it was taken, and it would never end.
    absurd = Discovery.leased_until > now + 2 * LEASE
    with writing():
        Discovery.insert(
            service=services.DEFAULT.name, covered_to=now - look_back
        ).on_conflict_ignore().execute()
        taken = list(
            Discovery.update(leased_until=now + LEASE, **_bounded(now, look_back))
            .where(
                Discovery.service == services.DEFAULT.name, Discovery.leased_until.is_null() | lapsed | absurd
            )
            .returning(Discovery)
            .execute()
        )
    return next((Turn(row.covered_to, row.window_end, row.listed, row.leased_until) for row in taken), None)


def note_progress(turn: Turn, window_end: datetime, listed: int, now: datetime) -> bool:
    """Keep how far a discovery has come and renew its lease. Returns False when somebody else has it."""
    if not _change(turn, window_end=window_end, listed=listed, leased_until=now + LEASE):
        return False
    turn.leased_until = now + LEASE
    return True


def finish(turn: Turn, window_end: datetime | None, now: datetime) -> None:
    """Note that all is seen that was submitted up to `window_end`, and give the turn back.

    With None nothing was there to be seen, and the next discovery begins where this one did.
    """
    covered_to = max(turn.covered_to, min(window_end, now) - OVERLAP) if window_end else turn.covered_to
    _change(turn, covered_to=covered_to, window_end=None, listed=0, leased_until=None, finished_at=now)


def release(turn: Turn) -> None:
    """Let others go on where this discovery has come to; after `finish` it does nothing."""
    _change(turn, leased_until=None)


def _bounded(now: datetime, look_back: timedelta) -> dict[str, Any]:
    is_ahead = Discovery.covered_to > now
    is_void = is_ahead | (Discovery.window_end > now + SKEW)
    return {
        "covered_to": Case(None, [(is_ahead, now - look_back)], Discovery.covered_to),
        "window_end": Case(None, [(is_void, None)], Discovery.window_end),
        "listed": Case(None, [(is_void, 0)], Discovery.listed),
    }


def _change(turn: Turn, **changes: object) -> bool:
    ours = Discovery.leased_until == turn.leased_until
    with writing():
        return bool(
            Discovery.update(**changes).where(Discovery.service == services.DEFAULT.name, ours).execute()
        )
