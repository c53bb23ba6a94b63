"""Sends events again at a person's word, one at once or all that a filter holds; and dismisses forwards.

An event is sent again by a forward of its own with the same webhook-id. The earlier one keeps its attempts
and its times. A forward that is pending is not sent twice: it is made due at once instead.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from peewee import Value, fn

from receiver.clock import from_iso, to_iso
from receiver.ledger.choosing import ForwardFilter, count_forwards, find_next
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.forward import DISMISSED, GIVEN_UP, OPEN_RESENDING, PENDING_FORWARD, RESENT, WAITING
from receiver.ledger.models import Endpoint, Forward, Resending, database

SLOWEST, DEFAULT_RATE, FASTEST = 0.1, 10.0, 500.0  # forwards a second
_AT_ONCE = 100
_BURST = timedelta(seconds=1)  # what was not sent in a longer time, as after a restart, is not made up for
_CLOCKS_DIFFER = timedelta(minutes=1)
_COPIED = ("endpoint", "event", "task_id", "sequence", "type", "happened_at", "url", "body")


class TooMany(ValueError):
    """A filter holds too many forwards, or too many must be looked at to find them."""


def resend(forward_id: int, now: datetime) -> int | None:
    """Send a forward's event again, even if its endpoint is held.

    Returns the number of the forward that is due now; None where there is no such forward, or its endpoint
    is no longer configured.
    """
    with writing():
        sent = _resend([forward_id], now)
    return sent[0] if sent else None


def dismiss(forward_id: int, now: datetime) -> bool:
    """Give a forward up for good. Returns False for one that is neither pending nor failed."""
    changes = {
        "status": DISMISSED,
        "ended_at": now,
        "next_attempt_at": None,
        "leased_until": None,
        "pushed": False,
    }
    is_open = Forward.status.in_([WAITING, GIVEN_UP])
    with writing():
        return bool(Forward.update(changes).where(Forward.id == forward_id, is_open).execute())


def order(wanted: ForwardFilter, rate: float, now: datetime) -> Resending:
    """Order that all forwards which a filter holds now are sent again, `rate` a second. Raises TooMany."""
    with database.connection_context():
        total = count_forwards(wanted)
        if total is None:
            raise TooMany("The filter holds too many forwards. Narrow it with since and until.")
        newest = Forward.select(fn.COALESCE(fn.MAX(Forward.id), 0)).scalar()
    with writing():
        ordered: Resending = Resending.create(
            created_at=now,
            wanted=_dump(wanted),
            rate=rate,
            total=total,
            up_to=newest,
            next_at=now,
            ended_at=None if total else now,
        )
    return ordered


def stop(resending_id: int, now: datetime) -> bool:
    """Stop a resending. Returns False for one that has ended, or is unknown."""
    stopped = Resending.update(stopped_at=now, ended_at=now)
    with writing():
        return bool(stopped.where(Resending.id == resending_id, OPEN_RESENDING).execute())


def find(resending_id: int) -> Resending | None:
    """Return a resending; None when there is none."""
    with database.connection_context():
        return Resending.get_or_none(Resending.id == resending_id)


def newest(limit: int = 20) -> list[Resending]:
    """Return the newest resendings, newest first."""
    with database.connection_context():
        return list(Resending.select().order_by(Resending.id.desc()).limit(limit))


def wanted_of(resending: Resending) -> ForwardFilter:
    """Return the filter of a resending."""
    known = json.loads(resending.wanted)
    times = {name: from_iso(known[name]) for name in ("since", "until") if name in known}
    return ForwardFilter(**known | times)


def advance(now: datetime) -> bool:
    """Send again what the pace of the resendings allows now. Returns False when there was nothing to do.

    Any number of processes may call it: one at a time goes on with a resending.
    """
    with database.connection_context():
        if _is_any_due.scalar(now=now) is None:
            return False
    due = _due(now)
    with writing():
        one = (due.for_update("FOR UPDATE SKIP LOCKED") if on_postgresql() else due).first()
        if one is not None:
            _advance(one, now)
    return one is not None


def _due(now: Any) -> Any:
    return Resending.select().where(OPEN_RESENDING, Resending.next_at <= now).order_by(Resending.next_at)


_is_any_due = Query(lambda now: _due(now).limit(1))


def _advance(one: Resending, now: datetime) -> None:
    begin = max(one.next_at, now - _BURST)
    room = min(int((now - begin).total_seconds() * one.rate) + 1, _AT_ONCE)
    wanted, latest = wanted_of(one), one.created_at + _CLOCKS_DIFFER
    # Later ones are not looked at: there may always be more.
    wanted = replace(wanted, until=min(wanted.until or latest, latest))
    after = None if one.reached_at is None else (one.reached_at, one.reached)
    found, place = find_next(wanted, room, after)
    sent = _resend([forward_id for forward_id in found if forward_id <= one.up_to], now)
    changes: dict[str, Any] = {
        "done": one.done + len(sent),
        "next_at": begin + timedelta(seconds=len(sent) / one.rate),
        "ended_at": now if place is None else None,
    }
    if place is not None:
        changes["reached_at"], changes["reached"] = place
    Resending.update(changes).where(Resending.id == one.id).execute()


def _resend(forward_ids: Sequence[int], now: datetime) -> list[int]:
    """Send events again, in the caller's transaction. Returns the numbers of the forwards that are due."""
    is_there = Endpoint.select(Endpoint.id).where(Endpoint.retired_at.is_null())
    chosen: Any = (
        Forward.select(Forward.id, Forward.resends)
        .where(Forward.id.in_(forward_ids), Forward.endpoint.in_(is_there))
        .order_by(Forward.id)  # so that two writers cannot deadlock
    )
    if on_postgresql():
        chosen = chosen.for_update()
    locked = {forward.id: forward for forward in chosen}
    return [_resend_one(locked[number], now) for number in forward_ids if number in locked]


def _resend_one(forward: Forward, now: datetime) -> int:
    first = forward.resends or forward.id
    # Without a condition on the status: SQLite would read all forwards of that status.
    of_event = Forward.select(Forward.id, Forward.status).where(
        (Forward.id == first) | (Forward.resends == first)
    )
    known = {one.id: one.status for one in of_event}
    for number, status in known.items():
        if status == WAITING:
            _push(number, now)
            return number
    Forward.update(resent_at=now).where(Forward.id == forward.id).execute()
    failed = [number for number, status in known.items() if status == GIVEN_UP]
    Forward.update(status=RESENT).where(Forward.id.in_(failed)).execute()
    return _copy(forward.id, first, now)


def _push(forward_id: int, now: datetime) -> None:
    # One that is leased is being sent.
    waits: Any = Forward.select(Forward.id).where(
        Forward.id == forward_id, PENDING_FORWARD, Forward.leased_until.is_null()
    )
    if on_postgresql():  # waits for nobody: its number may be lower than those that are locked already
        waits = waits.for_update("FOR UPDATE SKIP LOCKED")
    Forward.update(pushed=True, next_attempt_at=now).where(Forward.id.in_(waits)).execute()


def _copy(forward_id: int, first: int, now: datetime) -> int:
    new: dict[str, Any] = {
        "status": WAITING,
        "created_at": now,
        "resends": first,
        "pushed": True,
        "next_attempt_at": now,
        "attempts": 0,
        "counted": 0,
        "held_before": 0,
    }
    copied = [getattr(Forward, name) for name in _COPIED]
    values = [Value(value, converter=getattr(Forward, name).db_value) for name, value in new.items()]
    source = Forward.select(*copied, *values).where(Forward.id == forward_id)
    fields = copied + [getattr(Forward, name) for name in new]
    ((number,),) = Forward.insert_from(source, fields).returning(Forward.id).tuples().execute()
    return int(number)


def _dump(wanted: ForwardFilter) -> str:
    known = {name: value for name, value in asdict(wanted).items() if value is not None}
    return json.dumps({name: to_iso(v) if isinstance(v, datetime) else v for name, v in known.items()})
