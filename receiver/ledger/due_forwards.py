"""Which forwards can be sent now: the endpoints take turns, and each host has its places.

In the transaction of the claim that leases them: see `forwards`. A place holds a *chain*: forwards of several
tasks to one endpoint, which one thread sends one after another.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

# The forwards of a chain share the moment at which their lease lapses. No other chain at the endpoint has it.
Chain = list[Forward]
LEASE = timedelta(minutes=1)  # far above the time of an attempt, and of a chain
# Chains in flight to one host, and so attempts at once, of all processes. An endpoint that has failed for
# long gets a single one, so that those that hang leave room for others.
PER_HOST = 8
_LONG_FAILING = timedelta(minutes=1)
# One chain in so many takes the newest forwards that were never tried. So a backlog does not delay what
# happens now, even where places become free one by one.
_FRESH_TURN = 4
_ENDED = (DELIVERED, GIVEN_UP, RESENT, DISMISSED)
_EVER = datetime(9999, 12, 31)
_MOMENT = timedelta(microseconds=1)


@dataclass(slots=True)
class _InFlight:
    """How many chains are in flight. A lease from the future is void."""

    latest: datetime  # when the last of their leases lapses
    at_endpoint: Counter[int] = field(default_factory=Counter)
    at_host: Counter[str] = field(default_factory=Counter)


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


def choose(now: datetime, room: int, lengths: Mapping[int, int], begun: Mapping[int, int]) -> list[Chain]:
    """Return up to `room` chains to send, with the ends of their leases, which the caller has to write.

    Locks the endpoints that something is due to. By endpoint, `lengths` bounds the chains, and `begun` is how
    many the caller has begun before.
    """
    # Locked, so that two processes cannot give away the same places.
    ready = _ready.objects(Endpoint, now=now)
    if not ready:
        return []
    in_flight = _in_flight(now)
    turns = _turns(ready, in_flight, now, room, lengths, begun)
    chosen = _take_turns(turns, in_flight, now, room)
    lapses_at = max(now + LEASE, in_flight.latest + _MOMENT)
    for position, forwards in enumerate(chosen):
        for forward in forwards:
            forward.leased_until = lapses_at + position * _MOMENT
    return chosen


def _is_ready(now: Any) -> Any:
    """Return the condition that something can be sent to an endpoint."""
    # By the ends of indexes, and not by EXISTS: for that PostgreSQL may read the whole table.
    soonest = Forward.select(fn.MIN(Forward.next_attempt_at)).where(Forward.endpoint == Endpoint.id)
    waiting = soonest.where(PENDING_FORWARD)
    is_due = Endpoint.held_at.is_null() & (waiting <= now)
    is_probed = (Endpoint.probe_at <= now) & (waiting <= _EVER)
    is_wanted = Endpoint.held_at.is_null(False) & (soonest.where(PUSHED) <= now)
    return Endpoint.retired_at.is_null() & (is_due | is_probed | is_wanted)


def _turns(
    ready: Sequence[Endpoint],
    in_flight: _InFlight,
    now: datetime,
    room: int,
    lengths: Mapping[int, int],
    begun: Mapping[int, int],
) -> list[list[Chain]]:
    """Return the chains that could be sent to each endpoint."""
    at_endpoint, at_host = in_flight.at_endpoint, in_flight.at_host
    # Those that fail come last, and those come first that have the fewest chains in flight.
    ready = sorted(ready, key=lambda one: (one.failing_since is not None, at_endpoint[one.id], one.id))
    turns = []
    for one in ready:
        places = min(_most(one, now) - at_endpoint[one.id], PER_HOST - at_host[one.host], room)
        turns.append(_chains_at(one, places, lengths[one.id], begun[one.id], now) if places > 0 else [])
    return turns


def _take_turns(
    turns: Sequence[Sequence[Chain]], in_flight: _InFlight, now: datetime, room: int
) -> list[Chain]:
    """Choose as many chains as there is room for, the first of each endpoint before the second of any."""
    chosen: list[Chain] = []
    at_host = in_flight.at_host
    for forwards in filter(None, chain.from_iterable(zip_longest(*turns))):
        endpoint = forwards[0].endpoint
        if len(chosen) < room and at_host[endpoint.host] < PER_HOST:
            chosen.append(forwards)
            at_host[endpoint.host] += 1
            endpoints.note_probe(endpoint, now)
    return chosen


def _in_flight(now: datetime) -> _InFlight:
    found = _InFlight(now)
    for leased in _leased.objects(Forward, now=now):
        found.at_endpoint[leased.endpoint_id] += leased.number
        found.at_host[leased.host] += leased.number
        found.latest = max(found.latest, leased.leased_until)
    return found


def _build_leased(now: Any) -> Any:
    chains = fn.COUNT(Forward.leased_until.distinct()).alias("number")
    latest = fn.MAX(Forward.leased_until).alias("leased_until")
    return (
        Forward.select(Forward.endpoint, Endpoint.host, chains, latest)
        .join(Endpoint)
        .where(LEASED, Forward.leased_until > now, Forward.leased_until <= now + (LEASE + SKEW))
        .group_by(Forward.endpoint, Endpoint.host)
    )


def _most(endpoint: Endpoint, now: datetime) -> int:
    if endpoint.held_at is not None:
        return PER_HOST  # for what a person wants sent: there is one probe at a time
    since = endpoint.failing_since
    return 1 if since is not None and since <= now - _LONG_FAILING else PER_HOST


def _chains_at(endpoint: Endpoint, places: int, length: int, begun: int, now: datetime) -> list[Chain]:
    """Return chains to send to an endpoint now, one for each place at most, in the order of their turns."""
    if endpoint.held_at is not None:
        return _spread(_due_although_held(endpoint, now), places)
    number = places * length
    backlog = _found(_backlog, endpoint, now=now, limit=number)
    fresh_places = [place for place in range(places) if (begun + place) % _FRESH_TURN == 1]
    if len(backlog) < number or not fresh_places:
        return _spread(backlog, places)
    newest = _found(_newest, endpoint, now=now, limit=len(fresh_places) * length)
    fresh = _spread(newest, len(fresh_places))
    known = {forward.id for forward in newest}
    old = [forward for forward in backlog if forward.id not in known]
    places_left = places - len(fresh)
    chains = _spread(old[: places_left * length], places_left)
    for place, forwards in zip(fresh_places, fresh, strict=False):
        chains.insert(place, forwards)
    return chains


def _spread(forwards: Sequence[Forward], places: int) -> list[Chain]:
    """Divide forwards among places: those that go first are at the beginning of the chains."""
    return [list(forwards[place::places]) for place in range(min(places, len(forwards)))]


def _due_although_held(endpoint: Endpoint, now: datetime) -> list[Forward]:
    """Return what a person wants sent, else a probe: the forward that is due first, even if that is later."""
    again = _found(_pushed, endpoint, now=now, limit=1)
    if again or endpoint.probe_at is None or endpoint.probe_at > now:
        return again
    return _found(_probe, endpoint, now=now, limit=1)


def _found(query: Query, endpoint: Endpoint, **values: Any) -> list[Forward]:
    found: list[Forward] = query.objects(Forward, endpoint=endpoint.id, **values)
    for forward in found:
        forward.endpoint = endpoint
    return found


def _unblocked(endpoint: Any) -> Any:
    """Select an endpoint's forwards, except those that wait for an earlier one of their task."""
    earlier = Forward.alias()
    blocks = earlier.select(SQL("1")).where(
        earlier.task_id == Forward.task_id,
        earlier.endpoint == Forward.endpoint,
        earlier.id < Forward.id,
        earlier.status.not_in(_ENDED),
    )
    return Forward.select().where(Forward.endpoint == endpoint, ~fn.EXISTS(blocks))


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
