"""Counts tasks by kind and by the hour in which we first heard of them.

Triggers update the table `tally` in the transaction that changes a task, so the two cannot disagree. A total
is the sum of a few thousand rows, however many tasks there are. A task that is deleted moves from its hour to
the hour DELETED: totals count the tasks of the past too, and counts of what there is leave them out.
On PostgreSQL each connection adds to rows of its own (`shard`), so that no transaction waits for another.
Only the sum over all shards counts; a single row may be negative.

See "Where new things go" in docs/design.md.
"""

from collections import Counter
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from peewee import SQL, Case, fn

from receiver.ledger.engine.db import on_postgresql, writing
from receiver.ledger.engine.statements import Query
from receiver.ledger.models import DELETED, TALLY_KEY, Tally, database
from receiver.upstream.results import EXPIRED, FAILED, PENDING, SUCCEEDED

_HOUR = timedelta(hours=1)
_LONG_AGO = ""  # the hour of the row into which old hours are folded
_NO_MATTER = -1  # the value of `took` in rows folded across durations
_KEY = TALLY_KEY[:-1]  # without the shard
# Upper bounds in seconds, exclusive. `took` is the index of a result's step; len(STEPS) if it took longer.
STEPS = (5, 15, 30, 60, 120, 180, 300, 600, 1800, 3600, 21600)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Counts of what became of the tasks first heard of in a span of time.

    `missed` tasks had no final callback, and a look-up recovered them.
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
    """Return the counts over all tasks we ever heard of."""
    with database.connection_context():
        counts: Any = Tally.select(*_outcomes()).tuples().get()
    return Outcomes(*map(int, counts))


def services_in_use() -> set[str]:
    """Return the services of which there are tasks."""
    query = (
        Tally.select(Tally.service)
        .where(Tally.hour != DELETED)
        .group_by(Tally.service)
        .having(_total(None) > 0)
    )
    with database.connection_context():
        return {row.service for row in query}


def count_by_hour(since: datetime, until: datetime) -> dict[datetime, Outcomes]:
    """Return the counts by hour, from the hour of `since` to the hour of `until`, empty hours included."""
    query = Tally.select(Tally.hour, *_outcomes()).where(Tally.hour >= _hour(since)).group_by(Tally.hour)
    with database.connection_context():
        counted: list[Any] = list(query.tuples())
    known = {hour: Outcomes(*map(int, counts)) for hour, *counts in counted}
    first = since.replace(minute=0, second=0, microsecond=0)
    hours = (first + n * _HOUR for n in range(int((until - first) / _HOUR) + 1))
    return {hour: known.get(_hour(hour), Outcomes()) for hour in hours}


def count_by_length(since: datetime) -> dict[str, list[int]]:
    """Return histograms of how long tasks took, by `settled_by`: a count for each of the STEPS, and one more.

    Tasks count that we first heard of in the hour of `since` or later. `since` must not be before `fold`'s
    `by_length_since`.
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
    """Merge old rows and return how many were merged.

    Each moment says how far back one dimension is kept: hours, durations, shards. Rows that another
    transaction has locked wait for the next time: waiting for them here could deadlock.
    """
    folded = _fold_some(_take_hours, by_hour_since)
    folded += _fold_some(_take_lengths, by_length_since)
    return folded + _fold_some(_take_shards, by_shard_since)


def _fold_some(take: Query, since: datetime) -> int:
    with writing():
        rows = take.rows(since=_hour(since))
        sums: Counter[tuple[Any, ...]] = Counter()
        for *parts, tasks in rows:
            sums[tuple(parts)] += tasks
        for parts in sorted(sums):  # in one order, so that two processes that fold cannot deadlock
            row = dict(zip((column.name for column in _KEY), parts, strict=True))
            Tally.insert(**row, shard=0, tasks=sums[parts]).on_conflict(
                conflict_target=[*_KEY, Tally.shard], update={Tally.tasks: Tally.tasks + sums[parts]}
            ).execute()
    return len(rows)


def _build_take_hours(since: Any) -> Any:
    folded_already = (Tally.hour == _LONG_AGO) & (Tally.shard == 0) & (Tally.took == _NO_MATTER)
    return _taking((Tally.hour < since) & ~folded_already, hour=SQL("''"), took=SQL(f"{_NO_MATTER}"))


def _build_take_lengths(since: Any) -> Any:
    return _taking((Tally.hour < since) & (Tally.took != _NO_MATTER), took=SQL(f"{_NO_MATTER}"))


def _build_take_shards(since: Any) -> Any:
    return _taking(((Tally.hour < since) | (Tally.hour == DELETED)) & (Tally.shard != 0))


def _taking(which: Any, **folded: Any) -> Any:
    """Delete rows, and return their keys with what is folded in its place, and their counts."""
    query = Tally.select(Tally.id).where(which)
    if on_postgresql():
        query = query.for_update("FOR UPDATE SKIP LOCKED")  # type: ignore[arg-type]  # the stubs know bool only
    key = [folded.get(column.name, column) for column in _KEY]
    return Tally.delete().where(Tally.id.in_(query)).returning(*key, Tally.tasks)


_take_hours, _take_lengths = Query(_build_take_hours), Query(_build_take_lengths)
_take_shards = Query(_build_take_shards)


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
