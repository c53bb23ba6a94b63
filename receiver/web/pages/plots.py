"""Computes the overview's plots: positions and sizes in percent of the plot. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.reading.tally import STEPS, Outcomes
from receiver.web.formatting import span


@dataclass(frozen=True, slots=True)
class Part:
    """A segment of a column. `top` and `height` are in percent."""

    name: str
    tasks: int
    top: float
    height: float


@dataclass(frozen=True, slots=True)
class Column:
    """The tasks of one slot of time. `left` and `width` are in percent."""

    begins_at: datetime
    ends_at: datetime
    counts: Mapping[str, int]
    left: float
    width: float
    parts: Sequence[Part]

    @property
    def tasks(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Timeplot:
    """A plot of tasks by time. `most` is the number of tasks at the top of the scale."""

    columns: Sequence[Column]
    most: int

    @property
    def tasks(self) -> int:
        return sum(column.tasks for column in self.columns)


@dataclass(frozen=True, slots=True)
class Length:
    """How many results fall into one step of duration. The widths are in percent of the longest bar."""

    name: str
    callback: int
    lookup: int
    callback_width: float
    lookup_width: float


def plot_by_time(hours: Mapping[datetime, Outcomes], hours_a_slot: int) -> Timeplot:
    """Return the plot of consecutive `hours`, with `hours_a_slot` of them in each column."""
    begins, outcomes = list(hours), list(hours.values())
    slots = [
        (begins[n], sum(outcomes[n : n + hours_a_slot], Outcomes()))
        for n in range(0, len(begins), hours_a_slot)
    ]
    most = _round_up(max((slot.tasks for _, slot in slots), default=0))
    width, length = 100 / max(len(slots), 1), timedelta(hours=hours_a_slot)
    columns = [
        Column(begin, begin + length, _counts(slot), round(n * width, 3), round(width, 3), _parts(slot, most))
        for n, (begin, slot) in enumerate(slots)
    ]
    return Timeplot(columns, most)


def plot_lengths(counted: Mapping[str, Sequence[int]]) -> list[Length]:
    """Return how long results took, by callback and by look-up, from the shortest step to the longest."""
    none = [0] * (len(STEPS) + 1)
    callback, lookup = counted.get("callback", none), counted.get("lookup", none)
    used = [n for n in range(len(none)) if callback[n] or lookup[n]]
    if not used:
        return []
    most = max(*callback, *lookup)
    return [
        Length(
            _length(n),
            callback[n],
            lookup[n],
            round(100 * callback[n] / most, 2),
            round(100 * lookup[n] / most, 2),
        )
        for n in range(used[0], used[-1] + 1)
    ]


def _counts(slot: Outcomes) -> dict[str, int]:
    """Return the segments of a column from bottom to top. Each task is in exactly one of them."""
    return {
        "callback": slot.succeeded_by_callback,
        "lookup": slot.succeeded - slot.succeeded_by_callback,
        "failed": slot.failed,
        "open": slot.pending + slot.expired,
    }


def _parts(slot: Outcomes, most: int) -> list[Part]:
    parts, below = [], 0
    for name, tasks in _counts(slot).items():
        below += tasks
        if tasks:
            parts.append(Part(name, tasks, round(100 - 100 * below / most, 2), round(100 * tasks / most, 2)))
    return parts


def _round_up(most: int) -> int:
    """Round up to an even number that suits a scale: 2, 4, 6, 8, 10, 20, 40, 60, 80, 100 ..."""
    if most <= 2:
        return 2
    ten: int = 10 ** int(math.log10(most))
    return next(n * ten for n in (1, 2, 4, 6, 8, 10) if n * ten >= most and n * ten % 2 == 0)


def _length(step: int) -> str:
    if step == len(STEPS):
        return f"{span(timedelta(seconds=STEPS[-1]))} or more"
    return f"under {span(timedelta(seconds=STEPS[step]))}"
