"""How many tasks of each kind there are, by the hour in which they were first heard of.

The table `tally` is kept by triggers, in the transaction that changes a task: whoever changes it, the tally
follows or neither happens. So a total costs the sum of a few thousand rows however many tasks there are. On
PostgreSQL each connection adds to rows of its own (`shard`), so that no two transactions wait for each other;
what counts is always the sum over all of them, and a single row may be negative.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import SQL, Case, fn

from receiver.ledger.db import on_postgresql, writing
from receiver.ledger.models import Tally, database
from receiver.ledger.results import EXPIRED, FAILED, PENDING, STATUSES

_LONG_AGO = ""  # the hour to which those that nobody asks for any more are folded
_KEY = (Tally.hour, Tally.status, Tally.settled_by, Tally.missed, Tally.disputed)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the tasks first heard of in a span of time.

    `missed` had no final callback and were recovered by a look-up; they are part of `by_lookup`.
    """

    tasks: int = 0
    pending: int = 0
    expired: int = 0
    failed: int = 0
    by_callback: int = 0
    by_lookup: int = 0
    missed: int = 0
    disputed: int = 0


def count_by_status() -> dict[str, int]:
    """Return how many tasks have each status, zero included."""
    query = Tally.select(Tally.status, _total(None)).group_by(Tally.status).tuples()
    with database.connection_context():
        counts: list[Any] = list(query)
    return dict.fromkeys(STATUSES, 0) | {status: int(count) for status, count in counts}


def count_outcomes(since: datetime | None = None) -> Outcomes:
    """Return what became of the tasks first heard of since the beginning of the hour of a moment, or ever."""
    query = Tally.select(
        _total(None),
        _total(Tally.status == PENDING),
        _total(Tally.status == EXPIRED),
        _total(Tally.status == FAILED),
        _total(Tally.settled_by == "callback"),
        _total(Tally.settled_by == "lookup"),
        _total(Tally.missed),
        _total(Tally.disputed),
    )
    if since is not None:
        query = query.where(Tally.hour >= _hour(since))
    with database.connection_context():
        counts: Any = query.tuples().get()
    return Outcomes(*map(int, counts))


def fold(by_hour_since: datetime, by_shard_since: datetime) -> int:
    """Join rows that nobody needs apart and return how many there were: the hours before one moment, and the
    shards of those before another.

    Rows that somebody is adding to stay until the next time: to wait for them could deadlock.
    """
    folded_already = (Tally.hour == _LONG_AGO) & (Tally.shard == 0)
    folded = _fold_some((Tally.hour < _hour(by_hour_since)) & ~folded_already, SQL("''"))
    return folded + _fold_some((Tally.hour < _hour(by_shard_since)) & (Tally.shard != 0), Tally.hour)


def _fold_some(which: Any, hour: Any) -> int:
    query = Tally.select(Tally.id).where(which)
    if on_postgresql():
        query = query.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # the stubs know bool only
    with writing():
        gone = Tally.delete().where(Tally.id.in_(query)).returning(hour, *_KEY[1:], Tally.tasks)
        rows = list(gone.tuples().execute())
        sums: Counter[tuple[Any, ...]] = Counter()
        for *key, tasks in rows:
            sums[tuple(key)] += tasks
        for key in sorted(sums):  # in one order, or two who fold could deadlock
            row = dict(zip((column.name for column in _KEY), key, strict=True))
            Tally.insert(**row, shard=0, tasks=sums[key]).on_conflict(
                conflict_target=[*_KEY, Tally.shard], update={Tally.tasks: Tally.tasks + sums[key]}
            ).execute()
    return len(rows)


def _total(condition: Any) -> Any:
    counted = Tally.tasks if condition is None else Case(None, [(condition, Tally.tasks)], 0)
    return fn.COALESCE(fn.SUM(counted), 0)


def _hour(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H}"
