"""Which forwards a filter holds: finds them in either direction, and counts them, with bounded reads."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial, reduce
from operator import and_
from typing import Any, NamedTuple, cast

from peewee import SQL, Case, fn

from receiver.ledger.engine.statements import Query, as_moment
from receiver.ledger.forward import DELIVERED, DISMISSED, GIVEN_UP, HELD, RESENT, WAITING
from receiver.ledger.models import Endpoint, Forward, database

ForwardPlace = tuple[datetime, int]  # a forward's place in a list: its created_at and its id

STATES = (WAITING, HELD, DELIVERED, GIVEN_UP, RESENT, DISMISSED)
# How many forwards of a status one page reads at most when no index serves the filter.
MOST_LOOKED_AT = 1000
MOST_TO_COUNT = 100_000
_IS_CLOSED = Endpoint.held_at.is_null(False) | Endpoint.retired_at.is_null(False)
_STORED = (WAITING, DELIVERED, GIVEN_UP, RESENT, DISMISSED)


@dataclass(frozen=True, slots=True)
class ForwardFilter:
    """Which forwards to list. None means any value. Times are when a forward was made.

    `status` is a forward's `state`: `pending` are those that no held endpoint keeps, `failed` those that
    nobody has sent again.
    """

    status: str | None = None
    endpoint: int | None = None
    type: str | None = None
    task: str | None = None
    cause: str | None = None  # of a failure, as `causes` groups them
    since: datetime | None = None
    until: datetime | None = None


def find_places(
    wanted: ForwardFilter, limit: int, beyond: ForwardPlace | None, newest_first: bool
) -> tuple[list[ForwardPlace], ForwardPlace | None]:
    """Return up to `limit` places in the list's order, and where the read stopped early, if it did."""
    most = limit if _is_served(wanted) else max(limit, MOST_LOOKED_AT)
    looks = [_look(start, wanted, most, beyond, newest_first) for start in _starts(wanted)]
    looked_at = sorted((row for look in looks for row in look), reverse=newest_first)
    ends = [look[-1].place for look in looks if len(look) == most]
    ended = (max if newest_first else min)(ends, default=None)
    if ended is not None:
        looked_at = [row for row in looked_at if not _is_beyond(row.place, ended, newest_first)]
    found = [row.place for row in _only(wanted, looked_at)]
    return found[:limit], ended if len(found) < limit else None


def find_next(
    wanted: ForwardFilter, limit: int, after: ForwardPlace | None
) -> tuple[list[int], ForwardPlace | None]:
    """Return the numbers of the oldest forwards after a place, and where to go on; None at the end.

    In the caller's connection. There may be fewer than `limit`, although the list goes on.
    """
    places, ended = find_places(wanted, limit + 1, after, newest_first=False)
    found = [forward_id for _, forward_id in places[:limit]]
    return found, places[limit - 1] if len(places) > limit else ended


def count_forwards(wanted: ForwardFilter) -> int | None:
    """Count the forwards that a filter holds; None where more than MOST_TO_COUNT must be looked at."""
    with database.connection_context():
        looks = [_count(start, wanted) for start in _starts(wanted)]
    if any(looked_at > MOST_TO_COUNT for looked_at, _ in looks):
        return None
    return sum(count for _, count in looks)


class _Looked(NamedTuple):
    """What a look reads of a forward."""

    created_at: datetime
    id: int
    status: str
    endpoint: int
    type: str
    cause: str | None

    @property
    def place(self) -> ForwardPlace:
        return self.created_at, self.id


_READ = [getattr(Forward, name) for name in _Looked._fields]


def _is_served(wanted: ForwardFilter) -> bool:
    """Tell whether an index finds all that the filter holds, and nothing else."""
    if wanted.endpoint is not None or wanted.type is not None or wanted.cause is not None:
        return False
    return wanted.status is None or (wanted.task is None and wanted.status not in (WAITING, HELD))


def _starts(wanted: ForwardFilter) -> list[dict[str, str]]:
    """Return the values to start from. An index serves each of them. A forward has one of them at most."""
    if wanted.task is not None:
        return [{"task": wanted.task}]
    if wanted.status is not None:
        return [{"status": WAITING if wanted.status == HELD else wanted.status}]
    return [{"status": status} for status in _STORED]


def _look(
    start: dict[str, str], wanted: ForwardFilter, most: int, beyond: ForwardPlace | None, newest_first: bool
) -> list[_Looked]:
    rows = _listed[newest_first].rows(limit=most, **_given(start, wanted, beyond))
    return [_Looked(cast(datetime, as_moment(created_at)), *rest) for created_at, *rest in rows]


def _given(
    start: dict[str, str], wanted: ForwardFilter, beyond: ForwardPlace | None = None
) -> dict[str, Any]:
    """Return the values of a look that are not None."""
    created_at, forward_id = beyond or (None, None)
    given = {"since": wanted.since, "until": wanted.until, "created_at": created_at, "forward_id": forward_id}
    return start | {name: value for name, value in given.items() if value is not None}


def _build(
    newest_first: bool,
    *,
    limit: Any,
    task: Any = None,
    status: Any = None,
    since: Any = None,
    until: Any = None,
    created_at: Any = None,
    forward_id: Any = None,
) -> Any:
    start = Forward.status == status if task is None else Forward.task_id == task
    query = Forward.select(*_READ).where(start)
    if since is not None:
        query = query.where(Forward.created_at >= since)
    if until is not None:
        query = query.where(Forward.created_at < until)
    if created_at is not None:
        query = query.where(*_beyond(created_at, forward_id, newest_first))
    order = (Forward.created_at, Forward.id)
    return query.order_by(*(column.desc() if newest_first else column for column in order)).limit(limit)


_listed = {newest_first: Query(partial(_build, newest_first)) for newest_first in (False, True)}


def _count(start: dict[str, str], wanted: ForwardFilter) -> tuple[int, int]:
    """Return how many forwards were looked at, up to MOST_TO_COUNT + 1, and how many the filter holds."""
    looked_at = _build(False, limit=MOST_TO_COUNT + 1, **_given(start, wanted)).alias("looked_at")
    conditions = [
        getattr(looked_at.c, name) == value
        for name in ("endpoint_id", "type", "cause")
        if (value := getattr(wanted, name.removesuffix("_id"))) is not None
    ]
    if wanted.status is not None:
        closed = Endpoint.select(Endpoint.id).where(_IS_CLOSED)
        is_held = (looked_at.c.status == WAITING) & looked_at.c.endpoint_id.in_(closed)
        stored = WAITING if wanted.status == HELD else wanted.status
        conditions += [looked_at.c.status == stored, is_held if wanted.status == HELD else ~is_held]
    is_wanted = reduce(and_, conditions, SQL("1 = 1"))
    held = fn.COALESCE(fn.SUM(Case(None, [(is_wanted, 1)], 0)), 0)
    counts: Any = Forward.select(fn.COUNT(SQL("*")), held).from_(looked_at).tuples().get()
    return int(counts[0]), int(counts[1])


def _beyond(created_at: Any, forward_id: Any, newest_first: bool) -> tuple[Any, Any]:
    # The first condition is for the index; the second is exact.
    if newest_first:
        behind = (Forward.created_at < created_at) | (Forward.id < forward_id)
        return Forward.created_at <= created_at, behind
    return Forward.created_at >= created_at, (Forward.created_at > created_at) | (Forward.id > forward_id)


def _is_beyond(place: ForwardPlace, end: ForwardPlace, newest_first: bool) -> bool:
    return place < end if newest_first else place > end


def _only(wanted: ForwardFilter, rows: list[_Looked]) -> list[_Looked]:
    """Return the rows that a filter holds."""
    for name in ("endpoint", "type", "cause"):
        if (value := getattr(wanted, name)) is not None:
            rows = [row for row in rows if getattr(row, name) == value]
    if wanted.status is not None:
        closed = _closed({row.endpoint for row in rows if row.status == WAITING})
        states = (HELD if row.endpoint in closed and row.status == WAITING else row.status for row in rows)
        rows = [row for row, state in zip(rows, states, strict=True) if state == wanted.status]
    return rows


def _closed(endpoints: set[int]) -> set[int]:
    """Return those of the endpoints that are held or no longer configured."""
    if not endpoints:
        return set()
    return {one.id for one in Endpoint.select(Endpoint.id).where(Endpoint.id.in_(endpoints), _IS_CLOSED)}
