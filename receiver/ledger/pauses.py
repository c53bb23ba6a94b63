"""The circuit breaker: when upstream may not be asked. All reconcilers share its state.

A pause also adds to the time for which a task is waited for: see `patience`.

See "Circuit breaker" in docs/design.md.
"""

import logging
from datetime import datetime, timedelta
from typing import Any

from peewee import Case

from receiver.clock import SKEW
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import Pause, database
from receiver.ledger.patience import Paused

log = logging.getLogger(__name__)

FIRST_PROBE = timedelta(seconds=30)
LONGEST_PROBE = timedelta(minutes=15)
LONGEST_THROTTLE = timedelta(hours=1)
_THROTTLES_COUNT_FOR = timedelta(minutes=10)


def in_force(now: Any) -> Any:
    """Return the condition that holds for the pauses in force at a moment.

    A wrong clock may have dated a row: no throttle ends later than in LONGEST_THROTTLE or began in the
    future, and an account's pause is over once it has an end.
    """
    lasts = (Pause.ended_at > now) & (Pause.ended_at <= now + LONGEST_THROTTLE + SKEW)
    return Pause.ended_at.is_null() | (lasts & ~Pause.account & (Pause.started_at <= now + SKEW))


_in_force = Query(
    lambda now: (
        Pause.select().where(in_force(now)).order_by(Pause.account.desc(), Pause.ended_at.desc()).limit(1)
    )
)


def current_pause(now: datetime) -> Pause | None:
    """Return the pause in force, the account's before others; None when upstream may be asked."""
    with database.connection_context():
        return next(iter(_in_force.objects(Pause, now=now)), None)


def may_ask(now: datetime) -> bool:
    """Tell whether no pause is in force, or the account's next probe is due."""
    pause = current_pause(now)
    return pause is None or (pause.next_probe_at is not None and pause.next_probe_at <= now)


def stop_asking(
    reason: str, now: datetime, *, account: bool = False, retry_after: timedelta | None = None
) -> None:
    """Open the circuit breaker for all reconcilers, and tell the log.

    With `account` until a probe succeeds, otherwise for `retry_after` (see `throttle`).
    """
    if not account:
        waits = throttle(reason, retry_after, now)
        log.warning("Asking is paused for %.0f s: %s", waits.total_seconds(), reason)
    elif pause_account(reason, now):
        log.error("Asking is paused until this is mended, it concerns the whole account: %s", reason)


def pause_account(reason: str, now: datetime) -> bool:
    """Stop asking until a probe succeeds. Returns False if such a pause is open already."""
    statement = Pause.insert(
        reason=reason, account=True, started_at=now, next_probe_at=now + FIRST_PROBE
    ).on_conflict_ignore()
    with writing():
        return bool(statement.as_rowcount().execute() == 1)


def throttle(reason: str, retry_after: timedelta | None, now: datetime) -> timedelta:
    """Stop asking for `retry_after`, at most an hour, and return how long that is.

    If upstream named no time, it is 1 s, and doubles with each throttle of the last 10 minutes.
    """
    recent = Pause.select().where(
        ~Pause.account, Pause.started_at.between(now - _THROTTLES_COUNT_FOR, now + SKEW)
    )
    with writing():
        if retry_after is None:
            retry_after = timedelta(seconds=2 ** min(recent.count(), 9))
        wait = min(retry_after, LONGEST_THROTTLE)
        Pause.insert(reason=reason, account=False, started_at=now, ended_at=now + wait).execute()
    return wait


def take_probe(now: datetime) -> bool:
    """Claim the probe that is due, if one is; the next comes after twice the time, up to 15 min."""
    with writing():
        # No probe is so far ahead: a wrong clock set its time.
        absurd = Pause.next_probe_at > now + LONGEST_PROBE + SKEW
        due = Pause.ended_at.is_null() & ((Pause.next_probe_at <= now) | absurd)
        probes: int | None = Pause.select(Pause.probes).where(due).scalar()
        if probes is None:
            return False
        wait = min(FIRST_PROBE * 2 ** min(probes + 1, 10), LONGEST_PROBE)
        # Compare-and-set: of two processes that read the same number of probes, one wins.
        taken = (
            Pause.update(probes=Pause.probes + 1, next_probe_at=now + wait)
            .where(due, Pause.probes == probes)
            .execute()
        )
        return bool(taken)


def probe_at_once(now: datetime) -> None:
    """Make the next probe of the account's pause due now, if there is such a pause."""
    with writing():
        Pause.update(next_probe_at=now).where(Pause.ended_at.is_null()).execute()


def resume(now: datetime) -> bool:
    """End the account's pause, since upstream answers again. Returns False when there was none."""
    with writing():
        return bool(Pause.update(ended_at=now).where(Pause.ended_at.is_null()).execute())


def end_early(now: datetime) -> int:
    """End the pauses now whose end a clock that was ahead has set. Return how many.

    They are over, but until that end they would stop the give-up clocks of all tasks.
    """
    latest = Case(None, [(Pause.account, now + SKEW)], now + LONGEST_THROTTLE + SKEW)
    with writing():
        return int(Pause.update(ended_at=now).where(Pause.ended_at > latest).execute())


def pauses_since(moment: datetime) -> list[Paused]:
    """Return the times after a moment in which upstream could not be asked, in order of their start."""
    lasted = Pause.ended_at.is_null() | (Pause.ended_at > moment)
    query = Pause.select().where(lasted).order_by(Pause.started_at)
    with database.connection_context():
        return [Paused(pause.started_at, pause.ended_at) for pause in query]
