"""Repairs times of forwards, endpoints and resendings that are further ahead than a right clock sets them.

See "Clocks" in docs/design.md.
"""

from datetime import datetime

from peewee import Case, fn

from receiver.clock import SKEW
from receiver.ledger.due_forwards import LEASE
from receiver.ledger.endpoints import LONGEST_WAIT, PROBE_EVERY
from receiver.ledger.engine.db import writing
from receiver.ledger.forward import GIVEN_UP, LEASED, OPEN_RESENDING, PENDING_FORWARD, WAITING
from receiver.ledger.models import Endpoint, Forward, Resending


def mend_forwards(now: datetime) -> int:
    """Undo what a process told of forwards whose clock was ahead. Return how many are due again."""
    with writing():
        _mend_endpoints(now)
        # The next one comes within seconds. A clock that was ahead has set a later time.
        Resending.update(next_at=now).where(OPEN_RESENDING, Resending.next_at > now + SKEW).execute()
        return _make_due(now) + _send_on(now)


def _make_due(now: datetime) -> int:
    # Whatever is dated in the future was planned by that clock too.
    began_at = fn.COALESCE(Forward.began_at, Forward.created_at)
    is_ahead = (began_at > now + SKEW) & (Forward.next_attempt_at > now)
    late = Forward.update(next_attempt_at=now, leased_until=None).where(
        PENDING_FORWARD, (Forward.next_attempt_at > now + LONGEST_WAIT) | is_ahead
    )
    leased = Forward.update(next_attempt_at=now, leased_until=None).where(
        LEASED, PENDING_FORWARD, Forward.leased_until > now + LEASE + SKEW
    )
    return int(late.execute()) + int(leased.execute())


def _send_on(now: datetime) -> int:
    """Send again what was given up in the future. Let no clock of 8 days begin in the future."""
    again = (
        Forward.update(status=WAITING, next_attempt_at=now, ended_at=None)
        .where(Forward.status == GIVEN_UP, Forward.ended_at > now + SKEW)
        .execute()
    )
    Forward.update(began_at=now).where(PENDING_FORWARD, Forward.began_at > now + SKEW).execute()
    return int(again)


def _mend_endpoints(now: datetime) -> None:
    ahead = now + SKEW
    Endpoint.update(failing_since=now).where(Endpoint.failing_since > ahead).execute()
    # By a right clock it may not have failed for so long. One that a person holds stays held.
    failing = Endpoint.held_because == "failing"
    Endpoint.update(
        held_at=Case(None, [(failing, None)], now),
        probe_at=Case(None, [(failing, None)], Endpoint.probe_at),
        held_because=Case(None, [(failing, None)], Endpoint.held_because),
        failing_since=Case(None, [(failing, None)], Endpoint.failing_since),
    ).where(Endpoint.held_at > ahead).execute()
    Endpoint.update(probe_at=now).where(Endpoint.probe_at > ahead + PROBE_EVERY).execute()
