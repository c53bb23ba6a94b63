"""What monitors are told of the present: how much there is, and how old it is. Bounded reads."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from peewee import fn

from receiver.ledger import counters
from receiver.ledger.growth import database_bytes
from receiver.ledger.models import DOUBTFUL, KNOWN, OPEN, SETTLED, Tally, Task, database
from receiver.ledger.reading import queries

MOST_DUE = 10_000
_KINDS_OF_DUE = ((OPEN, KNOWN), (SETTLED, KNOWN), (DOUBTFUL,))


@dataclass(frozen=True, slots=True)
class Meters:
    """What is read from the ledger for monitors, beside the facts of the overview's notices."""

    counted: dict[str, dict[tuple[str, ...], float]]  # by counter and labels, see `counters`
    tasks: dict[tuple[str, str, str], int]  # by service, status and who settled them
    due: int  # up to MOST_DUE
    oldest_due: timedelta  # since when it is due; 0 where nothing is
    last_good_run_at: datetime | None
    database_bytes: int


def read_meters(now: datetime) -> Meters:
    """Return what monitors are told of this moment."""
    with database.connection_context():
        good = queries.last_good_run()
        return Meters(
            counted=counters.read_counters(),
            tasks=_tasks(),
            due=queries.count_due(now, MOST_DUE),
            oldest_due=_oldest_due(now),
            last_good_run_at=good.finished_at if good else None,
            database_bytes=database_bytes(),
        )


def _tasks() -> dict[tuple[str, str, str], int]:
    kind = (Tally.service, Tally.status, Tally.settled_by)
    rows: Any = Tally.select(*kind, fn.SUM(Tally.tasks)).group_by(*kind).tuples()
    return {(service, status, by): int(number) for service, status, by, number in rows}


def _oldest_due(now: datetime) -> timedelta:
    firsts: list[datetime | None] = [
        Task.select(Task.next_lookup_at)
        .where(Task.next_lookup_at.is_null(False), *kind)
        .order_by(Task.next_lookup_at)
        .limit(1)
        .scalar()
        for kind in _KINDS_OF_DUE
    ]
    return max([timedelta(0), *(now - first for first in firsts if first)])
