"""Lists of deliveries, newest first, by keyset: each page costs some ms however many deliveries there are.

A page ends by bytes as well as by rows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from receiver.ledger.models import UNREADABLE, Delivery, database
from receiver.ledger.reading.portions import MOST_BYTES

DeliveryPlace = tuple[datetime, int]  # a delivery's place in a list: its received_at and its id

# How many deliveries are looked at for one page where no index serves what is asked.
MOST_LOOKED_AT = 1000
# A body or headers may be large, and lists show none.
WITHOUT_BODY = [field for field in Delivery._meta.sorted_fields if field.name not in {"body", "headers"}]
_NEWEST = (Delivery.received_at.desc(), Delivery.id.desc())


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list; None leaves a field out. Times are of when they were received."""

    verdict: str | None = None
    task: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FoundDeliveries:
    """A page of deliveries, newest first; `next` is where the next page begins, None at the end.

    With `looked_back_to` there may be fewer than were asked for: no index serves the verdict, so only so many
    deliveries were looked at, back to that moment. There are also fewer when they are large.
    """

    deliveries: list[Delivery]
    next: DeliveryPlace | None = None
    looked_back_to: datetime | None = None


def list_deliveries(
    wanted: DeliveryFilter, limit: int, before: DeliveryPlace | None = None
) -> FoundDeliveries:
    """Return up to `limit` deliveries, newest first, from behind the one whose place is `before`.

    They come without headers and bodies.
    """
    with database.connection_context():
        places, ended = _look(wanted, limit + 1, before)
        wanted_ids = [delivery_id for _, delivery_id in places[:limit]]
        rows = Delivery.select(*WITHOUT_BODY).where(Delivery.id.in_(wanted_ids))
        listed = _that_fit(sorted(rows, key=_place, reverse=True))
    if len(listed) < len(places):
        # Rows that were pruned meanwhile do not end the list.
        return FoundDeliveries(listed, _place(listed[-1]) if listed else places[:limit][-1])
    return FoundDeliveries(listed, ended, ended and ended[0])


def _look(
    wanted: DeliveryFilter, limit: int, before: DeliveryPlace | None
) -> tuple[list[DeliveryPlace], DeliveryPlace | None]:
    """Return the places of the newest deliveries, and where the look gave up, if it did."""
    newest = newest_places(wanted, before)
    if wanted.verdict is None or _is_indexed(wanted):
        return list(newest.limit(limit).tuples()), None
    looked_at: list[Any] = list(newest.select_extend(Delivery.verdict).limit(MOST_LOOKED_AT).tuples())
    found = [(at, row_id) for at, row_id, verdict in looked_at if verdict == wanted.verdict]
    ended = looked_at[-1][:2] if len(looked_at) == MOST_LOOKED_AT and len(found) < limit else None
    return found[:limit], ended


def newest_places(wanted: DeliveryFilter, before: DeliveryPlace | None) -> Any:
    """Return the query of the places that an index serves: all of the filter, or all but the verdict."""
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
    # The first part is for the index, the second says it exactly.
    behind = (Delivery.received_at < received_at) | (Delivery.id < delivery_id)
    return query.where(Delivery.received_at <= received_at, behind)


def _is_indexed(wanted: DeliveryFilter) -> bool:
    return wanted.verdict == "unreadable"


def _that_fit(deliveries: list[Delivery]) -> list[Delivery]:
    """Return the first ones, as many as MOST_BYTES hold, and one at least: a ref may be long."""
    left = MOST_BYTES
    for number, delivery in enumerate(deliveries):
        left -= len((delivery.ref or "").encode()) + len((delivery.problem or "").encode())
        if left < 0 and number:
            return deliveries[:number]
    return deliveries


def _place(delivery: Delivery) -> DeliveryPlace:
    return delivery.received_at, delivery.id
