"""A row a service says how far its discovery has come. All reconcilers share it; one at a time leases it.

See "Leases" in docs/design.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import Case

from receiver.clock import SKEW
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query, Statement
from receiver.ledger.models import Discovery

LEASE = timedelta(minutes=2)
# Tasks may appear in upstream's list a little later than they were submitted.
OVERLAP = timedelta(minutes=5)


@dataclass(slots=True)
class Turn:
    """Our lease of a service's discovery, until `leased_until`. All fields are those of the row."""

    service: str
    covered_to: datetime
    window_end: datetime | None
    listed: int
    leased_until: datetime


def take_turn(service: str, now: datetime, upstream_now: datetime, look_back: timedelta) -> Turn | None:
    """Lease a service's discovery. Returns None while another process holds the lease.

    The first discovery begins `look_back` ago. So does one whose row is ahead of upstream's clock: it would
    see nothing until that time.
    """
    begins = upstream_now - look_back
    with writing():
        _insert.execute([{"service": service, "covered_to": begins}])
        taken = _take.objects(Discovery, service=service, now=now, upstream_now=upstream_now, begins=begins)
    turns = (Turn(row.service, row.covered_to, row.window_end, row.listed, row.leased_until) for row in taken)
    return next(turns, None)


def note_progress(turn: Turn, window_end: datetime, listed: int, now: datetime) -> bool:
    """Store how far a discovery has come and renew its lease. Returns False when the lease is lost."""
    if not _change(turn, window_end=window_end, listed=listed, leased_until=now + LEASE):
        return False
    turn.leased_until = now + LEASE
    return True


def finish(turn: Turn, window_end: datetime | None, now: datetime) -> None:
    """Note that we have seen all tasks submitted up to `window_end`, and release the lease.

    None means that upstream listed nothing. The next discovery then begins where this one did.
    """
    covered_to = max(turn.covered_to, min(window_end, now) - OVERLAP) if window_end else turn.covered_to
    _change(turn, covered_to=covered_to, window_end=None, listed=0, leased_until=None, finished_at=now)


def release(turn: Turn) -> None:
    """Release the lease, so that any process can continue from here. After `finish` this does nothing."""
    _change(turn, leased_until=None)


def _build_take(service: Any, now: Any, upstream_now: Any, begins: Any) -> Any:
    lapsed = Discovery.leased_until <= now
    # A longer lease was taken by a clock that was ahead: ignore it, or it might never end.
    absurd = Discovery.leased_until > now + 2 * LEASE
    return (
        Discovery.update(leased_until=now + LEASE, **_bounded(upstream_now, begins))
        .where(Discovery.service == service, Discovery.leased_until.is_null() | lapsed | absurd)
        .returning(Discovery)
    )


_insert = Statement(lambda rows: Discovery.insert_many(rows).on_conflict_ignore())
_take = Query(_build_take)


def _bounded(now: Any, begins: Any) -> dict[str, Any]:
    is_ahead = Discovery.covered_to > now
    is_void = is_ahead | (Discovery.window_end > now + SKEW)
    return {
        "covered_to": Case(None, [(is_ahead, begins)], Discovery.covered_to),
        "window_end": Case(None, [(is_void, None)], Discovery.window_end),
        "listed": Case(None, [(is_void, 0)], Discovery.listed),
    }


_change_ours = Query(
    lambda service, ours, **columns: Discovery.update(**columns).where(
        Discovery.service == service, Discovery.leased_until == ours
    )
)


def _change(turn: Turn, **changes: object) -> bool:
    with writing():
        return bool(_change_ours.execute(service=turn.service, ours=turn.leased_until, **changes))
