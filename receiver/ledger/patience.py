"""Decides when a task is asked about, given up and doubted, and how pauses delay that. Pure.

It takes and returns moments and durations. `evidence` writes them into a task's row.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypedDict

from receiver.ledger.pace import TaskKind
from receiver.ledger.timetable import LONGEST_WAIT, Timetable

# Anyone with the callback URL can name ids that upstream does not know. Such an id costs six look-ups on
# its first day.
_FIRST_UNKNOWN_WAIT = timedelta(seconds=30)
_UNKNOWN_FACTOR = 6
LONGEST_UNKNOWN_WAIT = timedelta(days=1)
JITTER = 0.2
LONGEST_WAIT_AFTER_ERROR = timedelta(minutes=2)
# After we were down for long, one answer is not enough to give a task up: it may be about to finish.
ENOUGH_LATE_ANSWERS = 3
WAIT_AFTER_LATE_ANSWER = timedelta(minutes=5)
# A process gives nothing up until its clock has been steady for so long: late answers must be so far apart in
# real time.
STEADY_AFTER = (ENOUGH_LATE_ANSWERS - 1) * WAIT_AFTER_LATE_ANSWER
_DOUBT_AFTER_GRACES, _DOUBT_AFTER_AT_LEAST = 6, timedelta(seconds=60)
# The waits in other processes' settings may be a little longer than ours.
_SETTINGS_DIFFER_BY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Paused:
    """A time in which upstream could not be asked. `ended_at` is None while it lasts."""

    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The facts of a task that its next look-up depends on, as they were before an answer came.

    `kind` and `age` tell how likely it is finished; the age is the time since its submission. `attempts`
    counts the look-ups since `silent_since`, its last sign of life. `late_answers` is None if no answer was
    late. `succeeded_at` is when a callback reported success. `progress` is the greatest so far. `is_named`:
    a caller or upstream has named the task, not only callbacks. `is_over`: upstream has given its final
    answer.
    """

    kind: TaskKind
    age: timedelta
    attempts: int
    silent_since: datetime
    late_answers: int | None = None
    succeeded_at: datetime | None = None
    progress: float | None = None
    is_named: bool = True
    is_over: bool = False


class Clocks(TypedDict):
    """The columns of a task that say when it is asked about, given up and doubted."""

    attempts: int
    silent_since: datetime
    next_lookup_at: datetime | None
    late_answers: int | None
    gave_up_at: datetime | None
    doubted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Backoff:
    """The waits between the look-ups of a silent task: those of the timetable.

    A task that only callbacks have named, while upstream does not know it, waits for 30 s, 3 min, 18 min and
    so on to a day, each within 20 % of it either way: `rng` spreads out ids that were made up together.
    """

    timetable: Timetable
    rng: random.Random

    def __call__(self, task: Waiting, is_unknown: bool) -> timedelta:
        """Return the wait after a look-up of the task."""
        if not is_unknown:
            return self.timetable.wait(task.kind, task.age, task.progress)
        # The exponent is bounded: a task that has been asked about for years must not overflow.
        times: int = _UNKNOWN_FACTOR ** min(task.attempts, 10)
        wait = min(_FIRST_UNKNOWN_WAIT * times, LONGEST_UNKNOWN_WAIT)
        return wait * self.rng.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for upstream. Time in which it could not be asked does not count.

    `backoff` gives the wait after a look-up. An answer without a final result is late if it comes
    `give_up_after` or more after the task's last sign of life. After ENOUGH_LATE_ANSWERS the task is given
    up, but never while the clock is not steady: by a wrong clock an answer may only seem late. A success that
    a callback reported is doubted if upstream has not confirmed it within `doubt_after`.
    """

    backoff: Callable[[Waiting, bool], timedelta]
    give_up_after: timedelta
    doubt_after: timedelta
    clock_is_steady: bool = True

    def after_result(self, task: Waiting) -> Clocks:
        """Return the clocks of a task once upstream's final answer is known: it is asked about no more."""
        return _clocks(task, None, late_answers=task.late_answers)

    def after_error(self, task: Waiting, now: datetime) -> Clocks:
        """Return the clocks after an error. A task must not wait for an hour because upstream was down."""
        wait = min(self.backoff(task, False), LONGEST_WAIT_AFTER_ERROR)
        return _clocks(task, now + wait, late_answers=task.late_answers)

    def before_next_service(self, task: Waiting, now: datetime) -> Clocks:
        """Return the clocks of a task that another service may know: due at once, and charged nothing."""
        return _clocks(task, now, task.late_answers) | {"attempts": task.attempts}

    def after_answer(
        self, task: Waiting, now: datetime, pauses: Iterable[Paused], progress: float | None, is_absent: bool
    ) -> Clocks:
        """Return the clocks after an answer without a final result: wait on or give up, and doubt a success.

        `progress` is that of the answer. `is_absent`: upstream does not know the task. `pauses` are those
        since the task's last sign of life, in order of their start.
        """
        if task.is_over:
            return self.after_result(task)  # somebody asked again; what upstream said before still counts
        pauses = list(pauses)
        if progress is not None and (task.progress is None or progress > task.progress):
            clocks = self._after_progress(task, now, progress)
        elif _waited(task.silent_since, now, pauses) >= self.give_up_after:
            clocks = self._after_late_answer(task, now)
        else:
            is_unknown = is_absent and not task.is_named
            clocks = _clocks(task, now + self.backoff(task, is_unknown), late_answers=None)
        if task.succeeded_at and _waited(task.succeeded_at, now, pauses) >= self.doubt_after:
            clocks["doubted_at"] = now
        return clocks

    def _after_progress(self, task: Waiting, now: datetime, progress: float) -> Clocks:
        # Progress restarts the give-up clock.
        restarted = replace(task, attempts=0, silent_since=now, progress=progress)
        return _clocks(restarted, now + self.backoff(restarted, False), late_answers=None)

    def _after_late_answer(self, task: Waiting, now: datetime) -> Clocks:
        answers = (task.late_answers or 0) + 1
        if answers < ENOUGH_LATE_ANSWERS or not self.clock_is_steady:
            return _clocks(task, now + WAIT_AFTER_LATE_ANSWER, min(answers, ENOUGH_LATE_ANSWERS))
        clocks = _clocks(task, None, answers)
        clocks["gave_up_at"] = now
        return clocks


def doubt_after(grace: timedelta) -> timedelta:
    """Return how long upstream may take to confirm a callback's success before that is doubted."""
    return max(_DOUBT_AFTER_GRACES * grace, _DOUBT_AFTER_AT_LEAST)


def longest_waits(*ours: timedelta) -> tuple[timedelta, timedelta]:
    """Return the longest possible waits of a known and a doubtful task, given the waits in our settings."""
    waits = (LONGEST_WAIT, LONGEST_UNKNOWN_WAIT * (1 + JITTER))
    known, doubtful = (max(*ours, wait + _SETTINGS_DIFFER_BY) for wait in waits)
    return known, doubtful


def paused_within(pauses: Iterable[Paused], start: datetime, end: datetime) -> timedelta:
    """Return for how long upstream could not be asked between two moments; `pauses` are in order of start."""
    total, counted_to = timedelta(0), start
    for pause in pauses:
        began, ended = max(pause.started_at, counted_to), min(pause.ended_at or end, end)
        if ended > began:
            total += ended - began
            counted_to = ended
    return total


def _waited(since: datetime, now: datetime, pauses: Iterable[Paused]) -> timedelta:
    return now - since - paused_within(pauses, since, now)


def _clocks(task: Waiting, next_lookup_at: datetime | None, late_answers: int | None) -> Clocks:
    return {
        "attempts": task.attempts + 1,
        "silent_since": task.silent_since,
        "next_lookup_at": next_lookup_at,
        "late_answers": late_answers,
        "gave_up_at": None,
        "doubted_at": None,
    }
