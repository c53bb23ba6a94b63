"""The circuit breaker: when upstream may not be asked, about one service or all. All reconcilers share it.

A pause also adds to the time for which a task is waited for: see `patience`.

See "Circuit breaker" in docs/design.md.
"""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from peewee import Case

from receiver.clock import SKEW
from receiver.ledger.engine.db import writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import Pause, database
from receiver.ledger.patience import Paused
from receiver.upstream.errors import ErrorScope, UpstreamError

log = logging.getLogger(__name__)

ALL = ""  # what stands for all services
FIRST_PROBE = timedelta(seconds=30)
LONGEST_PROBE = timedelta(minutes=15)
LONGEST_THROTTLE = timedelta(hours=1)
_THROTTLES_COUNT_FOR = timedelta(minutes=10)


def in_force(now: Any) -> Any:
    """Return the condition that holds for the pauses in force at a moment.

    A wrong clock may have dated a row: no throttle ends later than in LONGEST_THROTTLE or began in the
    future, and a pause that a probe ends is over once it has an end.
    """
    lasts = (Pause.ended_at > now) & (Pause.ended_at <= now + LONGEST_THROTTLE + SKEW)
    return Pause.ended_at.is_null() | (lasts & ~Pause.account & (Pause.started_at <= now + SKEW))


def waits_for_probe(now: Any) -> Any:
    """Return the condition that holds for the pauses in force that no probe may be made for yet."""
    # No probe is so far ahead: a wrong clock set its time.
    is_later = (Pause.next_probe_at > now) & (Pause.next_probe_at <= now + LONGEST_PROBE + SKEW)
    return in_force(now) & (Pause.next_probe_at.is_null() | is_later)


_in_force = Query(
    lambda now: Pause.select().where(in_force(now)).order_by(Pause.account.desc(), Pause.ended_at.desc())
)


def pauses_in_force(now: datetime) -> list[Pause]:
    """Return one pause for all services, if there is one, and one for each service that is paused itself."""
    with database.connection_context():
        pauses = _in_force.objects(Pause, now=now)
    first = {pause.service: pause for pause in reversed(pauses)}
    return sorted(first.values(), key=lambda pause: str(pause.service))


def current_pause(now: datetime, service: str = ALL) -> Pause | None:
    """Return the pause of all services, or else that of this one; None when upstream may be asked."""
    found = (pause for pause in pauses_in_force(now) if pause.service in (ALL, service))
    return next(found, None)


def paused_services(now: datetime) -> list[Pause]:
    """Return the pauses of single services, by name; they may last while all are paused."""
    return [pause for pause in pauses_in_force(now) if pause.service != ALL]


def due_probes(now: datetime) -> list[str]:
    """Return the services that a probe may be made for now. While all are paused that is ALL alone."""
    pauses = pauses_in_force(now)
    if any(pause.service == ALL for pause in pauses):
        pauses = [pause for pause in pauses if pause.service == ALL]
    return [pause.service for pause in pauses if _is_probe_due(pause, now)]


def may_ask(now: datetime) -> bool:
    """Tell whether upstream may be asked about some service, or the next probe of the account is due."""
    return current_pause(now) is None or bool(due_probes(now))


def _is_probe_due(pause: Pause, now: datetime) -> bool:
    probe_at = pause.next_probe_at
    return probe_at is not None and not now < probe_at <= now + LONGEST_PROBE + SKEW


def stop_after(error: UpstreamError, service: str, now: datetime) -> None:
    """Open the circuit breaker if the error of a call about a service stops all calls, or those about it."""
    if error.stops_all:
        is_of_account = error.scope is ErrorScope.ACCOUNT
        stop_asking(str(error), now, account=is_of_account, retry_after=error.retry_after)
    elif error.stops_service:
        stop_asking(str(error), now, account=True, service=service)


def stop_asking(
    reason: str,
    now: datetime,
    *,
    account: bool = False,
    retry_after: timedelta | None = None,
    service: str = ALL,
) -> None:
    """Open the circuit breaker for all reconcilers, for all services or for one, and tell the log.

    With `account` until a probe succeeds, otherwise for `retry_after` (see `throttle`).
    """
    about = f" about {service}" if service else ""
    if not account:
        waits = throttle(reason, retry_after, now, service)
        log.warning("Asking%s is paused for %.0f s: %s", about, waits.total_seconds(), reason)
    elif pause_account(reason, now, service):
        concerns = "other services are still asked" if service else "it concerns the whole account"
        log.error("Asking%s is paused until this is mended, %s: %s", about, concerns, reason)


def pause_account(reason: str, now: datetime, service: str = ALL) -> bool:
    """Stop asking until a probe succeeds. Returns False if such a pause is open already."""
    statement = Pause.insert(
        reason=reason, service=service, account=True, started_at=now, next_probe_at=now + FIRST_PROBE
    ).on_conflict_ignore()
    with writing():
        return bool(statement.as_rowcount().execute() == 1)


def throttle(reason: str, retry_after: timedelta | None, now: datetime, service: str = ALL) -> timedelta:
    """Stop asking for `retry_after`, at most an hour, and return how long that is.

    If upstream named no time, it is 1 s, and doubles with each throttle of the last 10 minutes.
    """
    recent = Pause.select().where(
        ~Pause.account,
        Pause.service == service,
        Pause.started_at.between(now - _THROTTLES_COUNT_FOR, now + SKEW),
    )
    with writing():
        if retry_after is None:
            retry_after = timedelta(seconds=2 ** min(recent.count(), 9))
        wait = min(retry_after, LONGEST_THROTTLE)
        Pause.insert(
            reason=reason, service=service, account=False, started_at=now, ended_at=now + wait
        ).execute()
    return wait


def take_probe(now: datetime, service: str = ALL) -> bool:
    """Claim the probe that is due, if one is; the next comes after twice the time, up to 15 min."""
    with writing():
        # No probe is so far ahead: a wrong clock set its time.
        absurd = Pause.next_probe_at > now + LONGEST_PROBE + SKEW
        is_due = (Pause.next_probe_at <= now) | absurd
        due = Pause.ended_at.is_null() & (Pause.service == service) & is_due
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
    """Make the next probe of each pause due now that a probe can end."""
    with writing():
        _probe_at_once.execute(now=now)


_probe_at_once = Query(lambda now: Pause.update(next_probe_at=now).where(Pause.ended_at.is_null()))


def resume(now: datetime, service: str = ALL) -> bool:
    """End the pause until a probe, since upstream answers again. Returns False when there was none."""
    with writing():
        ours = Pause.ended_at.is_null() & (Pause.service == service)
        return bool(Pause.update(ended_at=now).where(ours).execute())


def resume_after_probe(services: Sequence[str], now: datetime) -> list[str]:
    """End the pauses that probes were made for, and tell the log. Return those that have ended."""
    ended = [service for service in services if resume(now, service)]
    for service in ended:
        log.info("Upstream answers%s again; asking goes on.", f" about {service}" if service else "")
    return ended


def end_early(now: datetime) -> int:
    """End the pauses now whose end a clock that was ahead has set. Return how many.

    They are over, but until that end they would stop the give-up clocks of all tasks.
    """
    latest = Case(None, [(Pause.account, now + SKEW)], now + LONGEST_THROTTLE + SKEW)
    with writing():
        return int(Pause.update(ended_at=now).where(Pause.ended_at > latest).execute())


def pauses_since(moment: datetime, service: str = ALL) -> list[Paused]:
    """Return the times after a moment when upstream could not be asked about a service, in order of start."""
    with database.connection_context():
        pauses = _since.objects(Pause, moment=moment, service=service)
    return [Paused(pause.started_at, pause.ended_at) for pause in pauses]


def _build_since(moment: Any, service: Any) -> Any:
    lasted = Pause.ended_at.is_null() | (Pause.ended_at > moment)
    return Pause.select().where(lasted, Pause.service.in_((ALL, service))).order_by(Pause.started_at)


_since = Query(_build_since)
