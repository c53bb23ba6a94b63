"""Which forwards can be sent now: the endpoints take turns, and each host has its places.

In the transaction of the claim that leases them: see `forwards`.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import chain, zip_longest
from typing import Any

from peewee import SQL, Select, fn

from receiver.clock import SKEW
from receiver.ledger import endpoints
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.engine.statements import Query
from receiver.ledger.forward import (
    DELIVERED,
    DISMISSED,
    FRESH,
    GIVEN_UP,
    LEASED,
    OPEN_RESENDING,
    PENDING_FORWARD,
    PUSHED,
    RESENT,
)
from receiver.ledger.models import Endpoint, Event, Forward, Reader, Resending, database

LEASE = timedelta(minutes=1)  # far above the time of an attempt
# Attempts at once at one host, of all processes. An endpoint that has failed for long gets a single one, so
# that those that hang leave room for others.
PER_HOST = 8
_LONG_FAILING = timedelta(minutes=1)
# A share of an endpoint's places goes to the newest of what was never tried: a backlog does not delay what
# happens now.
_FRESH = 1 / 4
_ENDED = (DELIVERED, GIVEN_UP, RESENT, DISMISSED)
_EVER = datetime(9999, 12, 31)


def is_anything_to_do(now: datetime, reader: str) -> bool:
    """Tell whether events wait to be dealt, or forwards can be sent, or are to be sent again.

    It reads at most some rows for each endpoint.
    """
    with database.connection_context():
        return bool(_anything_to_do.scalar(now=now, reader=reader))


def _build_anything_to_do(now: Any, reader: Any) -> Any:
    dealt = Reader.select(Reader.event).where(Reader.name == reader)
    is_undealt = fn.COALESCE(Event.select(fn.MAX(Event.id)), 0) > fn.COALESCE(dealt, 0)
    is_ready = fn.EXISTS(Endpoint.select(SQL("1")).where(_is_ready(now)))
    resending = Resending.select(fn.MIN(Resending.next_at)).where(OPEN_RESENDING)
    is_resent = fn.COALESCE(resending <= now, SQL("FALSE"))
    return Select([], [is_undealt | is_ready | is_resent]).bind(database)


def choose(now: datetime, room: int) -> list[int]:
    """Return the numbers of up to `room` forwards to send. Locks the endpoints that something is due to."""
    # Locked, so that two processes cannot give away the same places.
    ready = _ready.objects(Endpoint, now=now)
    return _choose(ready, now, room) if ready else []


def _is_ready(now: Any) -> Any:
    """Return the condition that something can be sent to an endpoint."""
    # By the ends of indexes, and not by EXISTS: for that PostgreSQL may read the whole table.
    soonest = Forward.select(fn.MIN(Forward.next_attempt_at)).where(Forward.endpoint == Endpoint.id)
    waiting = soonest.where(PENDING_FORWARD)
    is_due = Endpoint.held_at.is_null() & (waiting <= now)
    is_probed = (Endpoint.probe_at <= now) & (waiting <= _EVER)
    is_wanted = Endpoint.held_at.is_null(False) & (soonest.where(PUSHED) <= now)
    return Endpoint.retired_at.is_null() & (is_due | is_probed | is_wanted)


def _choose(ready: Sequence[Endpoint], now: datetime, room: int) -> list[int]:
    at_endpoint, at_host = _in_flight(now)
    # Those that fail come last, and those come first that have the fewest attempts in flight.
    ready = sorted(ready, key=lambda one: (one.failing_since is not None, at_endpoint[one.id], one.id))
    turns = []
    for one in ready:
        places = min(_most(one, now) - at_endpoint[one.id], PER_HOST - at_host[one.host], room)
        turns.append([(id_, one) for id_ in _due_at(one, places, now)])
    chosen: list[int] = []
    for id_, one in filter(None, chain.from_iterable(zip_longest(*turns))):
        if len(chosen) < room and at_host[one.host] < PER_HOST:
            chosen.append(id_)
            at_host[one.host] += 1
            endpoints.note_probe(one, now)
    return chosen


def _in_flight(now: datetime) -> tuple[Counter[int], Counter[str]]:
    """Return how many attempts are in flight by endpoint, and by host. A lease from the future is void."""
    at_endpoint, at_host = Counter[int](), Counter[str]()
    for leased in _leased.objects(Forward, now=now):
        at_endpoint[leased.endpoint_id] += leased.number
        at_host[leased.host] += leased.number
    return at_endpoint, at_host


def _build_leased(now: Any) -> Any:
    return (
        Forward.select(Forward.endpoint, Endpoint.host, fn.COUNT(Forward.id).alias("number"))
        .join(Endpoint)
        .where(LEASED, Forward.leased_until > now, Forward.leased_until <= now + (LEASE + SKEW))
        .group_by(Forward.endpoint, Endpoint.host)
    )


def _most(endpoint: Endpoint, now: datetime) -> int:
    if endpoint.held_at is not None:
        return PER_HOST  # for what a person wants sent: there is one probe at a time
    since = endpoint.failing_since
    return 1 if since is not None and since <= now - _LONG_FAILING else PER_HOST


def _due_at(endpoint: Endpoint, places: int, now: datetime) -> list[int]:
    """Return the numbers of forwards to send to an endpoint now."""
    if places <= 0:
        return []
    if endpoint.held_at is not None:
        return _due_although_held(endpoint, now)
    wanted = {"endpoint": endpoint.id, "now": now}
    backlog = _numbers(_backlog, limit=places, **wanted)
    if len(backlog) < places or places == 1:
        return backlog
    fresh = max(int(places * _FRESH), 1)
    newest = _numbers(_newest, limit=fresh, **wanted)
    return list(dict.fromkeys([*backlog[: places - fresh], *newest, *backlog]))[:places]


def _due_although_held(endpoint: Endpoint, now: datetime) -> list[int]:
    """Return what a person wants sent, else a probe: the forward that is due first, even if that is later."""
    wanted = {"endpoint": endpoint.id, "now": now, "limit": 1}
    again = _numbers(_pushed, **wanted)
    if again or endpoint.probe_at is None or endpoint.probe_at > now:
        return again
    return _numbers(_probe, **wanted)


def _numbers(query: Query, **values: Any) -> list[int]:
    return [forward.id for forward in query.objects(Forward, **values)]


def _unblocked(endpoint: Any) -> Any:
    """Select an endpoint's forwards, except those that wait for an earlier one of their task."""
    earlier = Forward.alias()
    blocks = earlier.select(SQL("1")).where(
        earlier.task_id == Forward.task_id,
        earlier.endpoint == Forward.endpoint,
        earlier.id < Forward.id,
        earlier.status.not_in(_ENDED),
    )
    return Forward.select(Forward.id).where(Forward.endpoint == endpoint, ~fn.EXISTS(blocks))


def _build_backlog(endpoint: Any, now: Any, limit: Any) -> Any:
    due = _unblocked(endpoint).where(PENDING_FORWARD, Forward.next_attempt_at <= now)
    return _unlocked(due.order_by(Forward.next_attempt_at, Forward.id), limit)


def _build_newest(endpoint: Any, now: Any, limit: Any) -> Any:
    # Without the index on when it is due: that one is in another order.
    is_due = fn.COALESCE(Forward.next_attempt_at, _EVER) <= now
    in_turn = (Forward.created_at.desc(), Forward.id.desc())
    return _unlocked(_unblocked(endpoint).where(FRESH, is_due).order_by(*in_turn), limit)


def _build_pushed(endpoint: Any, now: Any, limit: Any) -> Any:
    pushed = _unblocked(endpoint).where(PUSHED, Forward.next_attempt_at <= now)
    return _unlocked(pushed.order_by(Forward.next_attempt_at, Forward.id), limit)


def _build_probe(endpoint: Any, now: Any, limit: Any) -> Any:
    is_free = Forward.leased_until.is_null() | (Forward.leased_until <= now)
    probe = _unblocked(endpoint).where(PENDING_FORWARD, is_free)
    return _unlocked(probe.order_by(Forward.next_attempt_at, Forward.id), limit)


def _unlocked(due: Any, limit: Any) -> Any:
    query = due.limit(limit)
    return query.for_update("FOR UPDATE SKIP LOCKED") if on_postgresql() else query


_anything_to_do = Query(_build_anything_to_do)
_ready = Query(lambda now: endpoints.locking(Endpoint.select().where(_is_ready(now))))
_leased = Query(_build_leased)
_backlog, _newest = Query(_build_backlog), Query(_build_newest)
_pushed, _probe = Query(_build_pushed), Query(_build_probe)
