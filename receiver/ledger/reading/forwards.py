"""Lists forwards, newest first, with keyset pagination: a page costs a few ms however many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import SQL, fn

from receiver.ledger.choosing import STATES as STATES
from receiver.ledger.choosing import ForwardFilter as ForwardFilter
from receiver.ledger.choosing import ForwardPlace as ForwardPlace
from receiver.ledger.choosing import count_forwards as count_forwards
from receiver.ledger.choosing import find_places
from receiver.ledger.forward import GIVEN_UP
from receiver.ledger.models import Attempt, Endpoint, Forward, database

MOST_COUNTED = 10_000
_MOST_CAUSES = 20
# Bodies may be large, and lists do not show them.
_WITHOUT_BODY = [field for field in Forward._meta.sorted_fields if field.name != "body"]


@dataclass(frozen=True, slots=True)
class FoundForwards:
    """A page of forwards with their endpoints, newest first. `next` is where the next page begins; None at
    the end.

    `looked_back_to` is set when no index serves the filter and the read stopped at MOST_LOOKED_AT: it is the
    moment that the read reached. Such a page may be short.
    """

    forwards: list[Forward]
    next: ForwardPlace | None = None
    looked_back_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Failed forwards that nobody has sent again or dismissed, and that failed of the same."""

    cause: str
    count: int
    oldest_at: datetime
    newest_at: datetime


def list_forwards(wanted: ForwardFilter, limit: int, before: ForwardPlace | None = None) -> FoundForwards:
    """Return up to `limit` forwards, newest first, that come after the place `before`. Without bodies."""
    with database.connection_context():
        places, ended = find_places(wanted, limit + 1, before, newest_first=True)
        rows = _with_endpoints([forward_id for _, forward_id in places[:limit]])
    listed = sorted(rows, key=lambda forward: (forward.created_at, forward.id), reverse=True)
    if len(places) > limit:
        return FoundForwards(listed, places[limit - 1])
    return FoundForwards(listed, ended, ended and ended[0])


def find_forward(forward_id: int) -> Forward | None:
    """Return a forward with its endpoint and body; None when there is none or it was pruned."""
    with database.connection_context():
        query = Forward.select(Forward, Endpoint).join(Endpoint).where(Forward.id == forward_id)
        found: Forward | None = query.first()
        return found


def attempts_of(forward_id: int, limit: int = 100) -> list[Attempt]:
    """Return a forward's newest attempts, newest first."""
    query = Attempt.select().where(Attempt.forward == forward_id).order_by(Attempt.id.desc()).limit(limit)
    with database.connection_context():
        return list(query)


def resendings_of(forward: Forward, limit: int = 20) -> list[Forward]:
    """Return the newest forwards by which people have sent the forward's event again, newest first."""
    first = forward.resends or forward.id
    query = (
        Forward.select(Forward.id).where(Forward.resends == first).order_by(Forward.id.desc()).limit(limit)
    )
    with database.connection_context():
        return _with_endpoints([found.id for found in query])


def forwards_of(task_id: str, limit: int = 100) -> list[Forward]:
    """Return a task's newest forwards with their endpoints, newest first, without bodies."""
    query = Forward.select(Forward.id).where(Forward.task_id == task_id)
    with database.connection_context():
        newest = query.order_by(Forward.id.desc()).limit(limit)
        return _with_endpoints([found.id for found in newest])


def attempts_of_all(forwards: Sequence[Forward], limit: int = 100) -> list[Attempt]:
    """Return the newest attempts of some forwards, newest first, without what was sent and answered."""
    columns = ("id", "forward", "began_at", "took", "url", "kind", "status", "error")
    brief = [getattr(Attempt, name) for name in columns]
    query = Attempt.select(*brief).where(Attempt.forward.in_([forward.id for forward in forwards]))
    with database.connection_context():
        return list(query.order_by(Attempt.id.desc()).limit(limit))


def causes() -> list[Cause]:
    """Return what the dead letters failed of, the most frequent first. The newest MOST_COUNTED count."""
    newest = (
        Forward.select(Forward.cause, Forward.created_at)
        .where(Forward.status == GIVEN_UP)
        .order_by(Forward.created_at.desc(), Forward.id.desc())
        .limit(MOST_COUNTED)
        .alias("dead")
    )
    times = [of(newest.c.created_at).converter(Forward.created_at.python_value) for of in (fn.MIN, fn.MAX)]
    query = (
        Forward.select(newest.c.cause, fn.COUNT(SQL("*")), *times)
        .from_(newest)
        .group_by(newest.c.cause)
        .order_by(SQL("2 DESC"), SQL("1"))
        .limit(_MOST_CAUSES)
    )
    with database.connection_context():
        rows: list[Any] = list(query.tuples())
    return [Cause(cause or "", *others) for cause, *others in rows]


def _with_endpoints(ids: Sequence[int]) -> list[Forward]:
    query = Forward.select(*_WITHOUT_BODY, Endpoint).join(Endpoint).where(Forward.id.in_(ids))
    return list(query.order_by(Forward.id.desc()))
