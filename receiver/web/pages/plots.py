"""Computes the overview's plots: positions and sizes in percent of the plot. Pure."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.reading.tally import STEPS, Outcomes
from receiver.ledger.timetable import Timetable
from receiver.web.formatting import lasted, span

# Upper bounds in seconds, exclusive.
_LATENESS_STEPS = (5, 10, 15, 20, 30, 60, 120, 300, 900, 3600)
_MOST_KINDS = 8


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


@dataclass(frozen=True, slots=True)
class LatenessStep:
    """How many recovered results fall into one step of lateness. `width` is in percent of the longest bar."""

    name: str
    results: int
    width: float


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late recovered results were, in steps and in words. `untold`: upstream told no time for so many."""

    steps: Sequence[LatenessStep]
    results: int
    untold: int
    words: str


@dataclass(frozen=True, slots=True)
class UsualLength:
    """How long tasks of one kind take. The widths are in percent of the plot."""

    kind: TaskKind
    half_within: str
    most_within: str
    half_width: float
    most_width: float


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
            _step(n, STEPS),
            callback[n],
            lookup[n],
            round(100 * callback[n] / most, 2),
            round(100 * lookup[n] / most, 2),
        )
        for n in range(used[0], used[-1] + 1)
    ]


def plot_lateness(recovered: Sequence[timedelta | None]) -> Lateness:
    """Return the plot of how late recovered results were; None stands for a result of which nobody knows."""
    late = sorted(one for one in recovered if one is not None)
    counts = Counter(bisect_right(_LATENESS_STEPS, one.total_seconds()) for one in late)
    longest = max(counts.values(), default=0)
    steps = [
        LatenessStep(_step(n, _LATENESS_STEPS), counts[n], round(100 * counts[n] / longest, 2))
        for n in (range(min(counts), max(counts) + 1) if counts else ())
    ]
    return Lateness(steps, len(late), len(recovered) - len(late), _lateness_in_words(late))


def plot_usual_lengths(timetable: Timetable) -> list[UsualLength]:
    """Return how long tasks take, for the kinds of which enough is known and most results are remembered."""
    known = {kind: pace for kind, pace in timetable.paces.items() if timetable.known_kind(kind) == kind}
    # A wider kind tells nothing more when all of its results are of one narrower kind.
    repeated = {wider for kind in known for wider in kind.wider[1:] if known.get(wider) == known[kind]}
    shown = sorted(known.keys() - repeated, key=lambda kind: (-known[kind].results, kind))[:_MOST_KINDS]
    longest = max((known[kind].quantile(0.9) for kind in shown), default=1.0)
    return [_usual_length(kind, known[kind], longest) for kind in shown]


def _usual_length(kind: TaskKind, pace: Pace, longest: float) -> UsualLength:
    half, most = pace.quantile(0.5), pace.quantile(0.9)
    return UsualLength(
        kind,
        lasted(timedelta(seconds=half)),
        lasted(timedelta(seconds=most)),
        round(100 * half / longest, 2),
        round(100 * most / longest, 2),
    )


def _lateness_in_words(late: Sequence[timedelta]) -> str:
    """Return the median and the 99th percentile in words; `late` is sorted."""
    if len(late) < 2:
        return "".join(f"It was known {lasted(one)} after upstream had finished the task." for one in late)
    half, most = (lasted(late[math.ceil(share * len(late)) - 1]) for share in (0.5, 0.99))
    how_many = "99 of 100" if len(late) >= 100 else "all"
    return f"Half were known within {half} after upstream had finished the task, {how_many} within {most}."


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


def _step(place: int, bounds: Sequence[int]) -> str:
    if place == len(bounds):
        return f"{span(timedelta(seconds=bounds[-1]))} or more"
    return f"under {span(timedelta(seconds=bounds[place]))}"
