"""How many tasks of each kind there are, by the hour in which they were first heard of.

The table `tally` is kept by triggers, in the transaction that changes a task: whoever changes it, the tally
follows or neither happens. So a total costs the sum of a few thousand rows however many tasks there are. On
PostgreSQL each connection adds to rows of its own (`shard`), so that no two transactions wait for each other;
what counts is always the sum over all of them, and a single row may be negative.

See "Where new things go" in docs/design.md.
"""

from collections import Counter
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, Case, fn

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.models import Tally, database
from receiver.upstream.results import EXPIRED, FAILED, PENDING, SUCCEEDED

_HOUR = timedelta(hours=1)
_LONG_AGO = ""  # the hour to which those that nobody asks for any more are folded
_NO_MATTER = -1  # how long they took, of hours of which nobody asks that any more
_KEY = (Tally.hour, Tally.service, Tally.status, Tally.settled_by, Tally.missed, Tally.disputed, Tally.took)
# A result belongs to the first of these seconds that it took less than, or to one more, for the longest.
STEPS = (5, 15, 30, 60, 120, 180, 300, 600, 1800, 3600, 21600)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of the tasks first heard of in a span of time.

    `missed` had no final callback and were recovered by a look-up.
    """

    tasks: int = 0
    pending: int = 0
    succeeded: int = 0
    failed: int = 0
    expired: int = 0
    succeeded_by_callback: int = 0
    by_callback: int = 0
    missed: int = 0
    disputed: int = 0

    def __add__(self, other: "Outcomes") -> "Outcomes":
        return Outcomes(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    @property
    def settled(self) -> int:
        return self.succeeded + self.failed


def count_outcomes() -> Outcomes:
    """Return what became of all tasks ever heard of."""
    with database.connection_context():
        counts: Any = Tally.select(*_outcomes()).tuples().get()
    return Outcomes(*map(int, counts))


def count_by_hour(since: datetime, until: datetime) -> dict[datetime, Outcomes]:
    """Return what became of the tasks first heard of in each hour from that of one moment to that of another.

    Every hour is there, the empty ones too.
    """
    query = Tally.select(Tally.hour, *_outcomes()).where(Tally.hour >= _hour(since)).group_by(Tally.hour)
    with database.connection_context():
        counted: list[Any] = list(query.tuples())
    known = {hour: Outcomes(*map(int, counts)) for hour, *counts in counted}
    first = since.replace(minute=0, second=0, microsecond=0)
    hours = (first + n * _HOUR for n in range(int((until - first) / _HOUR) + 1))
    return {hour: known.get(_hour(hour), Outcomes()) for hour in hours}


def count_by_length(since: datetime) -> dict[str, list[int]]:
    """Return how many tasks took how long, by `settled_by`: for each of the STEPS, and longer than all.

    Of tasks first heard of since the beginning of the hour of a moment, at most `fold`'s `by_length_since`.
    """
    query = (
        Tally.select(Tally.settled_by, Tally.took, _total(None))
        .where(Tally.hour >= _hour(since), Tally.took >= 0)
        .group_by(Tally.settled_by, Tally.took)
    )
    with database.connection_context():
        rows: list[Any] = list(query.tuples())
    counted: dict[str, list[int]] = {}
    for settled_by, step, tasks in rows:
        counted.setdefault(settled_by, [0] * (len(STEPS) + 1))[step] = int(tasks)
    return counted


def fold(by_hour_since: datetime, by_length_since: datetime, by_shard_since: datetime) -> int:
    """Join rows that nobody needs apart and return how many there were: the hours before one moment, how long
    tasks took before another, and the shards before a third.

    Rows that somebody is adding to stay until the next time: to wait for them could deadlock.
    """
    old = Tally.hour < _hour(by_hour_since)
    folded_already = (Tally.hour == _LONG_AGO) & (Tally.shard == 0) & (Tally.took == _NO_MATTER)
    folded = _fold_some(old & ~folded_already, hour=SQL("''"), took=SQL(f"{_NO_MATTER}"))
    lengths = (Tally.hour < _hour(by_length_since)) & (Tally.took != _NO_MATTER)
    folded += _fold_some(lengths, took=SQL(f"{_NO_MATTER}"))
    return folded + _fold_some((Tally.hour < _hour(by_shard_since)) & (Tally.shard != 0))


def _fold_some(which: Any, **folded: Any) -> int:
    query = Tally.select(Tally.id).where(which)
    if on_postgresql():
        query = query.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # the stubs know bool only
    with writing():
        key = [folded.get(column.name, column) for column in _KEY]
        gone = Tally.delete().where(Tally.id.in_(query)).returning(*key, Tally.tasks)
        rows = list(gone.tuples().execute())
        sums: Counter[tuple[Any, ...]] = Counter()
        for *parts, tasks in rows:
            sums[tuple(parts)] += tasks
        for parts in sorted(sums):  # in one order, or two who fold could deadlock
            row = dict(zip((column.name for column in _KEY), parts, strict=True))
            Tally.insert(**row, shard=0, tasks=sums[parts]).on_conflict(
                conflict_target=[*_KEY, Tally.shard], update={Tally.tasks: Tally.tasks + sums[parts]}
            ).execute()
    return len(rows)


def _outcomes() -> list[Any]:
    conditions = (
        None,
        *(Tally.status == status for status in (PENDING, SUCCEEDED, FAILED, EXPIRED)),
        (Tally.status == SUCCEEDED) & (Tally.settled_by == "callback"),
        Tally.settled_by == "callback",
        Tally.missed,
        Tally.disputed,
    )
    return [_total(condition) for condition in conditions]


def _total(condition: Any) -> Any:
    counted = Tally.tasks if condition is None else Case(None, [(condition, Tally.tasks)], 0)
    return fn.COALESCE(fn.SUM(counted), 0)


def _hour(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H}"
