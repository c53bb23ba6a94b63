"""When an open task is asked about, by how long tasks of its kind take: pure.

A call to upstream asks about many tasks, and one look-up more costs nothing. But calls are limited. So a task
is asked about once it is likely enough to have finished.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from receiver.ledger.pace import Pace, TaskKind

# Upstream advises to wait for 5 to 10 s after the submission.
SOONEST = timedelta(seconds=8)
APART = timedelta(seconds=15)
LONGEST_WAIT = timedelta(hours=1)
# Ask when a task that had not finished at the last look-up has finished with this probability. When more is
# due than the rate lets through, fewer and surer questions find results sooner.
_CHANCE, _CHANCE_WHEN_BUSY = 0.15, 0.25
# A pace is known from so many results. Beyond an age that fewer than so few have reached, nothing is known.
_ENOUGH_RESULTS, _FEW_RESULTS = 20, 5
# Where nothing is known, the next wait is such a share of the task's age.
_LATER, _LATER_BEYOND = 0.25, 0.15
# A progress below this says nothing of the end.
_TELLING = 1.0


@dataclass(frozen=True, slots=True)
class Timetable:
    """The times of look-ups. `grace` is the first wait for a task of whose kind nothing has been learned.

    `chance` is how likely a task is to have finished by its next look-up, given that it had not at the last.
    """

    grace: timedelta
    paces: Mapping[TaskKind, Pace] = field(default_factory=dict)
    chance: float = _CHANCE

    def when_busy(self) -> "Timetable":
        """Return the times for when more is due than the rate lets through."""
        return replace(self, chance=_CHANCE_WHEN_BUSY)

    def first_wait(self, kind: TaskKind, age: timedelta = timedelta(0)) -> timedelta:
        """Return when to ask first about a task that was submitted `age` ago; 0 for at once."""
        pace = self.pace_of(kind)
        first = self.grace if pace is None else max(_likely_age(pace, timedelta(0), self.chance), SOONEST)
        return max(first - age, timedelta(0))

    def wait(self, kind: TaskKind, age: timedelta, progress: float | None = None) -> timedelta:
        """Return the wait after a look-up at that age. `progress` is what it told, of 100."""
        pace = self.pace_of(kind)
        next_age = age * (1 + _LATER) if pace is None else _likely_age(pace, age, self.chance)
        if progress is not None and progress >= _TELLING:
            next_age = _corrected(next_age, age, age * (100 / progress), is_known=pace is not None)
        return min(max(next_age - age, APART), LONGEST_WAIT)

    def pace_of(self, kind: TaskKind) -> Pace | None:
        """Return the pace of the narrowest kind of which enough is known; None where there is none."""
        known = self.known_kind(kind)
        return known and self.paces[known]

    def known_kind(self, kind: TaskKind) -> TaskKind | None:
        """Return the narrowest kind of which enough is known: `kind` or a wider one; None for none."""
        known = (one for one in kind.wider if one in self.paces)
        return next((one for one in known if self.paces[one].results >= _ENOUGH_RESULTS), None)


def _likely_age(pace: Pace, age: timedelta, chance: float) -> timedelta:
    """Return the age at which a task that is not finished at `age` has finished with that chance."""
    seconds = age.total_seconds()
    finished = pace.finished_by(seconds)
    left = pace.results - finished
    if left < _FEW_RESULTS:
        return age * (1 + _LATER_BEYOND)
    return timedelta(seconds=pace.age_when(finished + chance * left))


def _corrected(next_age: timedelta, age: timedelta, end: timedelta, is_known: bool) -> timedelta:
    """Return the age at which to ask next, if the progress suggests a result at the age `end`."""
    if not is_known or end < next_age:
        return end
    # The task is slower than most: come back half-way. Progress is not even.
    return max(next_age, age + (end - age) / 2)
