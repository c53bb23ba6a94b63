"""Tells how the customer's app is told: each endpoint's health, and all of it in a few facts.

What a query reads is bounded: counts end at MOST_COUNTED, and shares are of the newest forwards.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, fn

from receiver.ledger.dealing import READER
from receiver.ledger.forward import DELIVERED, GIVEN_UP, PENDING_FORWARD, RESENT, WAITING
from receiver.ledger.models import Endpoint, Event, Forward, Reader, database
from receiver.ledger.reading.forwards import MOST_COUNTED

LATELY = timedelta(hours=24)  # of which the shares are
MOST_SHARED = 1000  # forwards of each status that a share is of
MOST_ENDPOINTS = 100
_GIVEN_TIME = timedelta(minutes=1)  # one that was made just now need not have arrived


@dataclass(frozen=True, slots=True)
class Share:
    """How many of the newest forwards, of those made lately, were delivered."""

    delivered: int = 0
    of: int = 0

    def __add__(self, other: "Share") -> "Share":
        return Share(self.delivered + other.delivered, self.of + other.of)


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """How an endpoint does. `waiting` counts up to MOST_COUNTED."""

    endpoint: Endpoint
    share: Share
    waiting: int
    oldest_waiting_at: datetime | None


@dataclass(frozen=True, slots=True)
class ForwardFacts:
    """How the customer's app is told, altogether. Each count ends at MOST_COUNTED.

    What waits for an endpoint that FORWARD_URL no longer names does not count as waiting.
    """

    undealt_since: datetime | None  # when the oldest event happened that no forward was made of yet
    share: Share
    waiting: int
    oldest_waiting_at: datetime | None
    failed: int  # dead letters: nobody has sent them again or dismissed them
    oldest_failed_at: datetime | None
    held: list[Endpoint]  # the longest first, up to MOST_ENDPOINTS
    failing: Endpoint | None  # of those in FORWARD_URL that are not held, the one that fails for longest

    @property
    def is_used(self) -> bool:
        """Whether anything was due to the app lately, or waits."""
        return bool(self.share.of or self.waiting or self.failed or self.held or self.undealt_since)


def list_endpoints(now: datetime) -> list[EndpointHealth]:
    """Return the endpoints: those in FORWARD_URL, then servers of callback URLs, held and new ones first.

    Up to MOST_ENDPOINTS.
    """
    order = (Endpoint.is_app.desc(), Endpoint.held_at.is_null(), Endpoint.id.desc())
    with database.connection_context():
        shares = _shares(now)
        listed = list(Endpoint.select().order_by(*order).limit(MOST_ENDPOINTS))
        return [_health(endpoint, shares) for endpoint in listed]


def find_endpoint(endpoint_id: int, now: datetime) -> EndpointHealth | None:
    """Return an endpoint with its health; None when there is none."""
    with database.connection_context():
        endpoint = Endpoint.get_or_none(Endpoint.id == endpoint_id)
        return None if endpoint is None else _health(endpoint, _shares(now))


def forward_facts(now: datetime) -> ForwardFacts:
    """Return how the customer's app is told, altogether."""
    is_retired = Endpoint.retired_at.is_null(False)
    held = Endpoint.select().where(Endpoint.held_at.is_null(False), ~is_retired)
    retired = Endpoint.select(Endpoint.id).where(is_retired)
    waits = (Forward.status == WAITING) & Forward.endpoint.not_in(retired)
    failed = Forward.status == GIVEN_UP
    with database.connection_context():
        return ForwardFacts(
            undealt_since=_undealt_since(),
            share=sum(_shares(now).values(), Share()),
            waiting=_count(waits),
            oldest_waiting_at=_oldest(waits),
            failed=_count(failed),
            oldest_failed_at=_oldest(failed),
            held=list(held.order_by(Endpoint.held_at).limit(MOST_ENDPOINTS)),
            failing=_failing(),
        )


def _failing() -> Endpoint | None:
    fails = (Endpoint.is_app, Endpoint.held_at.is_null(), Endpoint.retired_at.is_null())
    failing = Endpoint.select().where(*fails, Endpoint.failing_since.is_null(False))
    first: Endpoint | None = failing.order_by(Endpoint.failing_since).first()
    return first


def _undealt_since() -> datetime | None:
    if not Endpoint.select().exists():
        return None  # there is nobody to tell
    dealt = Reader.select(Reader.event).where(Reader.name == READER)
    undealt = Event.select(Event.happened_at).where(Event.id > fn.COALESCE(dealt, 0))
    since: datetime | None = undealt.order_by(Event.id).limit(1).scalar()
    return since


def _health(endpoint: Endpoint, shares: dict[int, Share]) -> EndpointHealth:
    return EndpointHealth(
        endpoint=endpoint,
        share=shares.get(endpoint.id, Share()),
        waiting=_count(Forward.endpoint == endpoint.id, PENDING_FORWARD),
        oldest_waiting_at=_waiting(endpoint.id).order_by(Forward.id).limit(1).scalar(),
    )


def _waiting(endpoint_id: int) -> Any:
    return Forward.select(Forward.created_at).where(Forward.endpoint == endpoint_id, PENDING_FORWARD)


def _count(*conditions: Any) -> int:
    some = Forward.select(SQL("1 AS one")).where(*conditions).limit(MOST_COUNTED)
    return int(Forward.select(fn.COUNT(SQL("*"))).from_(some.alias("some")).scalar() or 0)


def _oldest(condition: Any) -> datetime | None:
    query = Forward.select(Forward.created_at).where(condition)
    oldest: datetime | None = query.order_by(Forward.created_at, Forward.id).limit(1).scalar()
    return oldest


def _shares(now: datetime) -> dict[int, Share]:
    """Return the share of each endpoint, of the newest forwards that were made lately."""
    until = {WAITING: now - _GIVEN_TIME}
    newest = {
        status: _newest(status, now - LATELY, until.get(status))
        for status in (DELIVERED, GIVEN_UP, RESENT, WAITING)
    }
    # Compare over one span: the shortest of those that the reads reached.
    since = max((rows[-1][0] for rows in newest.values() if len(rows) == MOST_SHARED), default=now - LATELY)
    all_, delivered = Counter[int](), Counter[int]()
    for status, rows in newest.items():
        counted = [endpoint for created_at, endpoint in rows if created_at >= since]
        all_.update(counted)
        if status == DELIVERED:
            delivered.update(counted)
    return {endpoint: Share(delivered[endpoint], of) for endpoint, of in all_.items()}


def _newest(status: str, since: datetime, until: datetime | None) -> list[tuple[datetime, int]]:
    rows: Any = _newest_query(status, since, until).tuples()
    return list(rows)


def _newest_query(status: str, since: datetime, until: datetime | None) -> Any:
    query = (
        Forward.select(Forward.created_at, Forward.endpoint)
        .where(Forward.status == status, Forward.created_at >= since)
        .order_by(Forward.created_at.desc(), Forward.id.desc())
        .limit(MOST_SHARED)
    )
    if until is not None:
        query = query.where(Forward.created_at < until)
    return query
