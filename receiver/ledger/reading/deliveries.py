"""Lists deliveries, newest first, with keyset pagination: a page costs a few ms however many there are.

A page is limited in bytes as well as in rows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.ledger.models import UNREADABLE, Delivery, database
from receiver.ledger.reading.portions import MOST_BYTES

DeliveryPlace = tuple[datetime, int]  # a delivery's place in a list: its received_at and its id

# How many deliveries one page reads at most when no index serves the filter.
MOST_LOOKED_AT = 1000
# Bodies and headers may be large, and lists do not show them.
WITHOUT_BODY = [field for field in Delivery._meta.sorted_fields if field.name not in {"body", "headers"}]
_NEWEST = (Delivery.received_at.desc(), Delivery.id.desc())


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list. None means any value. Times are times of arrival."""

    verdict: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FoundDeliveries:
    """A page of deliveries, newest first. `next` is where the next page begins; None at the end.

    `looked_back_to` is set when no index serves the verdict and the read stopped at MOST_LOOKED_AT: it is the
    moment that the read reached. Such a page may be short. A page of large deliveries is short too.
    """

    deliveries: list[Delivery]
    next: DeliveryPlace | None = None
    looked_back_to: datetime | None = None


def list_deliveries(
    wanted: DeliveryFilter, limit: int, before: DeliveryPlace | None = None
) -> FoundDeliveries:
    """Return up to `limit` deliveries, newest first, that come after the place `before` in the list.

    Headers and bodies are not loaded.
    """
    with database.connection_context():
        places, ended = _look(wanted, limit + 1, before)
        wanted_ids = [delivery_id for _, delivery_id in places[:limit]]
        rows = Delivery.select(*WITHOUT_BODY).where(Delivery.id.in_(wanted_ids))
        listed = _that_fit(sorted(rows, key=_place, reverse=True))
    if len(listed) < len(places):
        # The list goes on, even if all rows of this page were pruned meanwhile.
        return FoundDeliveries(listed, _place(listed[-1]) if listed else places[:limit][-1])
    return FoundDeliveries(listed, ended, ended and ended[0])


def _look(
    wanted: DeliveryFilter, limit: int, before: DeliveryPlace | None
) -> tuple[list[DeliveryPlace], DeliveryPlace | None]:
    """Return the places of the newest deliveries, and the place where the read stopped early, if it did."""
    newest = newest_places(wanted, before)
    if wanted.verdict is None or _is_indexed(wanted):
        return list(newest.limit(limit).tuples()), None
    looked_at: list[Any] = list(newest.select_extend(Delivery.verdict).limit(MOST_LOOKED_AT).tuples())
    found = [(at, row_id) for at, row_id, verdict in looked_at if verdict == wanted.verdict]
    ended = looked_at[-1][:2] if len(looked_at) == MOST_LOOKED_AT and len(found) < limit else None
    return found[:limit], ended


def newest_places(wanted: DeliveryFilter, before: DeliveryPlace | None) -> Any:
    """Return a query of places that an index serves. It may leave the filter's verdict out."""
    query = Delivery.select(Delivery.received_at, Delivery.id).order_by(*_NEWEST)
    if _is_indexed(wanted):
        query = query.where(UNREADABLE)
    if wanted.task is not None:
        query = query.where(Delivery.task == wanted.task)
    if wanted.since is not None:
        query = query.where(Delivery.received_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(Delivery.received_at < wanted.until)
    if before is None:
        return query
    received_at, delivery_id = before
    # The first condition is for the index; the second is exact.
    behind = (Delivery.received_at < received_at) | (Delivery.id < delivery_id)
    return query.where(Delivery.received_at <= received_at, behind)


def _is_indexed(wanted: DeliveryFilter) -> bool:
    return wanted.verdict == "unreadable"


def _that_fit(deliveries: list[Delivery]) -> list[Delivery]:
    """Return the first deliveries that fit into MOST_BYTES, at least one. A ref may be long."""
    left = MOST_BYTES
    for number, delivery in enumerate(deliveries):
        left -= len((delivery.ref or "").encode()) + len((delivery.problem or "").encode())
        if left < 0 and number:
            return deliveries[:number]
    return deliveries


def _place(delivery: Delivery) -> DeliveryPlace:
    return delivery.received_at, delivery.id
