"""Forwards: leases those that are due, and notes what came of them.

See "Leases" in docs/design.md. For one task and endpoint one forward is in flight at a time, and no later one
goes out while an earlier one is pending.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, zip_longest
from typing import Any

from peewee import SQL, Select, fn

from receiver.ledger import endpoints
from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.forward import (
    DELIVERED,
    FRESH,
    GIVEN_UP,
    OPEN_RESENDING,
    PENDING_FORWARD,
    PUSHED,
    WAITING,
)
from receiver.ledger.models import Attempt, Endpoint, Event, Forward, Reader, Resending, database

LEASE = timedelta(minutes=1)  # far above the time of an attempt
# Attempts at once at one host, of all processes. One that has failed for long gets a single one, so that
# those that hang leave room for others.
PER_HOST = 8
_LONG_FAILING = timedelta(minutes=1)
# Of an endpoint's places so many, of all, go to the newest of what was never tried: a backlog does not delay
# what happens now.
_FRESH = 1 / 4


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of an attempt at a claimed forward."""

    forward: Forward
    began_at: datetime
    took: timedelta
    url: str
    headers: str  # strict JSON
    kind: str
    status: int | None
    answer: bytes
    error: str | None
    cause: str | None  # a few words that group what failed; None for a success
    counted: int  # the attempts that pace the next one, this one included
    next_attempt_at: datetime | None  # None: given up, where it failed


def is_anything_to_do(now: datetime, reader: str) -> bool:
    """Tell whether events wait to be dealt, or forwards are due, or are to be sent again. One query."""
    dealt = Reader.select(Reader.event).where(Reader.name == reader)
    newest = Event.select(fn.MAX(Event.id))
    soonest = Forward.select(fn.MIN(Forward.next_attempt_at)).where(PENDING_FORWARD)
    resending = Resending.select(fn.MIN(Resending.next_at)).where(OPEN_RESENDING)
    is_undealt = fn.COALESCE(newest, 0) > fn.COALESCE(dealt, 0)
    is_due = fn.COALESCE(soonest <= now, SQL("FALSE")) | fn.COALESCE(resending <= now, SQL("FALSE"))
    with database.connection_context():
        return bool(Select([], [is_undealt | is_due]).bind(database).scalar())


def claim(now: datetime, room: int) -> list[Forward]:
    """Lease up to `room` forwards that are due, with their endpoints.

    The hosts take turns, and each gets at most PER_HOST attempts at once, of all processes. A backlog goes
    out oldest first. Of a held endpoint only probes are claimed, and what a person wants sent.
    """
    with writing():
        places = _places(now)
        wanted = [_due_at(endpoint, room_there, now) for endpoint, room_there in places]
        taken = list(chain.from_iterable(zip_longest(*wanted)))
        ids = [id_ for id_ in dict.fromkeys(taken) if id_ is not None][:room]
        if not ids:
            return []
        until = now + LEASE
        Forward.update(next_attempt_at=until, leased_until=until).where(Forward.id.in_(ids)).execute()
        claimed = Forward.select(Forward, Endpoint).join(Endpoint).where(Forward.id.in_(ids))
        return sorted(claimed, key=lambda forward: ids.index(forward.id))


def _places(now: datetime) -> list[tuple[Endpoint, int]]:
    """Return the endpoints that something may be due to, each with how many attempts may begin there."""
    is_due = Forward.select(SQL("1")).where(
        Forward.endpoint == Endpoint.id, PENDING_FORWARD, Forward.next_attempt_at <= now
    )
    due = list(Endpoint.select().where(Endpoint.retired_at.is_null(), fn.EXISTS(is_due)))
    if not due:
        return []
    is_leased = (Forward.leased_until > now) & (Forward.leased_until <= now + LEASE)
    leased = Forward.select(Forward.id, Endpoint.host).join(Endpoint).where(is_leased)
    in_flight = Counter(forward.endpoint.host for forward in leased)
    # Two endpoints on one host share its places.
    on_host = Counter(endpoint.host for endpoint in due)
    places = ((one, (_most(one, now) - in_flight[one.host]) / on_host[one.host]) for one in due)
    return [(one, -int(-room // 1)) for one, room in places if room > 0]


def _most(endpoint: Endpoint, now: datetime) -> int:
    since = endpoint.failing_since
    return 1 if since is not None and since <= now - _LONG_FAILING else PER_HOST


def _due_at(endpoint: Endpoint, room: int, now: datetime) -> list[int]:
    """Return the numbers of forwards to send to an endpoint now."""
    earlier = Forward.alias()
    is_behind = earlier.select(SQL("1")).where(
        earlier.task_id == Forward.task_id,
        earlier.endpoint == Forward.endpoint,
        earlier.id < Forward.id,
        earlier.status == WAITING,
    )
    in_order = Forward.select(Forward.id).where(Forward.endpoint == endpoint.id, ~fn.EXISTS(is_behind))
    due = in_order.where(PENDING_FORWARD, Forward.next_attempt_at <= now)
    if endpoint.held_at is not None:
        return _due_although_held(endpoint, in_order, due, now)
    backlog = _unlocked(due.order_by(Forward.next_attempt_at, Forward.id), room)
    fresh = max(int(room * _FRESH), 1)
    if len(backlog) < room or room == 1:
        return backlog
    new = in_order.where(FRESH, _is_due_by(now)).order_by(Forward.id.desc())
    newest = _unlocked(new, fresh)
    return list(dict.fromkeys([*backlog[: room - fresh], *newest, *backlog]))[:room]


def _is_due_by(now: datetime) -> Any:
    # Written so that no index serves it. Those of FRESH and PUSHED are to be used, which have few rows.
    return fn.COALESCE(Forward.next_attempt_at, Forward.next_attempt_at) <= now


def _due_although_held(endpoint: Endpoint, in_order: Any, due: Any, now: datetime) -> list[int]:
    again = _unlocked(in_order.where(PUSHED, _is_due_by(now)), 1)
    if again or endpoint.probe_at is None or endpoint.probe_at > now:
        return again
    Endpoint.update(probe_at=now + endpoints.PROBE_EVERY).where(Endpoint.id == endpoint.id).execute()
    return _unlocked(due.order_by(Forward.next_attempt_at, Forward.id), 1)


def _unlocked(due: Any, limit: int) -> list[int]:
    query = due.limit(limit)
    if on_postgresql():
        query = query.for_update("FOR UPDATE SKIP LOCKED")
    return [forward.id for forward in query]


def release(claimed: Iterable[Forward], now: datetime) -> None:
    """Return forwards that were claimed and not tried: they are due again at once."""
    for forward in claimed:
        with writing():
            Forward.update(next_attempt_at=now, leased_until=None).where(*_ours(forward)).execute()


def note(attempted: Sequence[Attempted], now: datetime) -> list[Endpoint]:
    """Note attempts and what follows from each. Returns the endpoints that are held from now on.

    When the lease had lapsed, only a success changes the forward: another process has it.
    """
    with writing():
        Attempt.insert_many([_attempt(one) for one in attempted]).execute()
        for one in sorted(attempted, key=lambda one: one.forward.id):
            _settle(one, now)
        return endpoints.note_health(_health(attempted), now)


def _attempt(one: Attempted) -> Mapping[str, Any]:
    return {
        "forward": one.forward.id,
        "began_at": one.began_at,
        "took": one.took.total_seconds(),
        "url": one.url,
        "headers": one.headers,
        "kind": one.kind,
        "status": one.status,
        "answer": one.answer,
        "error": one.error,
    }


def _settle(one: Attempted, now: datetime) -> None:
    forward, is_over = one.forward, one.cause is None or one.next_attempt_at is None
    changes = {
        "attempts": Forward.attempts + 1,
        "counted": one.counted,
        "began_at": forward.began_at or one.began_at,
        "held_before": forward.held_before if forward.began_at else forward.endpoint.held_seconds,
        "leased_until": None,
        "next_attempt_at": None if is_over else one.next_attempt_at,
        "status": DELIVERED if one.cause is None else GIVEN_UP if is_over else WAITING,
        "ended_at": now if is_over else None,
        "cause": one.cause,
        "pushed": False,
    }
    is_ours = (Forward.id == forward.id, PENDING_FORWARD) if one.cause is None else _ours(forward)
    Forward.update(**changes).where(*is_ours).execute()


def _ours(forward: Forward) -> tuple[Any, ...]:
    return Forward.id == forward.id, PENDING_FORWARD, Forward.leased_until == forward.leased_until


def _health(attempted: Sequence[Attempted]) -> list[endpoints.Health]:
    by_endpoint: dict[int, list[Attempted]] = defaultdict(list)
    for one in sorted(attempted, key=lambda one: one.began_at + one.took):
        by_endpoint[one.forward.endpoint.id].append(one)
    return [
        endpoints.Health(id_, [one.cause for one in all_], is_gone=all_[-1].kind == "gone")
        for id_, all_ in by_endpoint.items()
    ]
