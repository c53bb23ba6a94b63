"""When a task is asked about, given up and doubted, without a database."""

import random
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.pace import TaskKind
from receiver.ledger.patience import (
    ENOUGH_LATE_ANSWERS,
    LONGEST_UNKNOWN_WAIT,
    WAIT_AFTER_LATE_ANSWER,
    Backoff,
    Patience,
    Paused,
    Waiting,
    doubt_after,
    longest_waits,
    paused_within,
)
from receiver.ledger.timetable import LONGEST_WAIT, Timetable

NOW = datetime(2026, 1, 31, 12)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
GRACE = 3 * MINUTE


def waiting(silent_for: timedelta = MINUTE, **facts) -> Waiting:
    return Waiting(
        **{"kind": TaskKind("s"), "age": silent_for, "attempts": 4, "silent_since": NOW - silent_for} | facts
    )


def backoff(seed: int = 1) -> Backoff:
    return Backoff(Timetable(GRACE), random.Random(seed))


def patience(**overrides) -> Patience:
    waits = {"backoff": lambda *_: HOUR, "give_up_after": DAY, "doubt_after": GRACE}
    return Patience(**waits | overrides)


def answered(task: Waiting, *, pauses=(), progress=None, is_absent=False, **overrides):
    return patience(**overrides).after_answer(task, NOW, pauses, progress, is_absent)


class TestBackoff:
    def test_a_task_waits_as_the_timetable_says(self):
        task = waiting(age=HOUR, progress=30)
        assert backoff()(task, False) == Timetable(GRACE).wait(task.kind, HOUR, 30)

    def test_what_upstream_does_not_know_waits_longer_each_time_within_a_fifth(self):
        for attempts, seconds in ((0, 30), (1, 180), (2, 1080), (10**9, 86400)):
            waits = [one(waiting(attempts=attempts), True) for one in [backoff()] * 200]
            assert timedelta(seconds=seconds * 0.8) <= min(waits) < timedelta(seconds=seconds)
            assert timedelta(seconds=seconds) < max(waits) <= timedelta(seconds=seconds * 1.2)

    def test_what_upstream_does_not_know_costs_few_look_ups_a_day(self):
        wait = backoff()
        since, asked = timedelta(0), 0
        while since <= DAY:
            since += wait(waiting(attempts=asked), True) / 1.2  # at the least
            asked += 1
        assert asked <= 8

    def test_the_same_seed_gives_the_same_waits(self):
        one, other = (
            [wait(waiting(attempts=n), n % 2 == 0) for n in range(9)] for wait in (backoff(7), backoff(7))
        )
        assert one == other


class TestAfterResult:
    def test_nothing_is_asked_any_more(self):
        clocks = patience().after_result(waiting(late_answers=2))
        assert clocks == {
            "attempts": 5,
            "silent_since": NOW - MINUTE,
            "next_lookup_at": None,
            "late_answers": 2,
            "gave_up_at": None,
            "doubted_at": None,
        }


class TestAfterError:
    def test_it_waits_minutes_at_most_and_takes_nothing_back(self):
        clocks = patience().after_error(
            waiting(silent_for=9 * DAY, late_answers=2, succeeded_at=NOW - DAY), NOW
        )
        assert (clocks["next_lookup_at"], clocks["attempts"]) == (NOW + 2 * MINUTE, 5)
        assert (clocks["late_answers"], clocks["gave_up_at"], clocks["doubted_at"]) == (2, None, None)

    def test_a_shorter_backoff_counts(self):
        assert (
            patience(backoff=lambda *_: SECOND).after_error(waiting(), NOW)["next_lookup_at"] == NOW + SECOND
        )


class TestAfterAnswer:
    def test_a_running_task_waits_for_the_backoff(self):
        clocks = answered(waiting(late_answers=1))
        assert (clocks["next_lookup_at"], clocks["attempts"]) == (NOW + HOUR, 5)
        assert (clocks["late_answers"], clocks["silent_since"]) == (None, NOW - MINUTE)

    @pytest.mark.parametrize(
        ("is_absent", "is_named", "is_unknown"),
        [(True, False, True), (True, True, False), (False, False, False), (False, True, False)],
    )
    def test_what_only_callbacks_name_and_upstream_does_not_know_has_its_own_backoff(
        self, is_absent, is_named, is_unknown
    ):
        told = []
        task = waiting(is_named=is_named)
        answered(task, is_absent=is_absent, backoff=lambda *given: told.append(given) or HOUR)
        assert told == [(task, is_unknown)]

    def test_one_whose_result_upstream_gave_before_is_asked_about_no_more(self):
        clocks = answered(waiting(silent_for=9 * DAY, is_over=True, succeeded_at=NOW - DAY), progress=10)
        assert clocks == patience().after_result(waiting(silent_for=9 * DAY))


class TestProgress:
    @pytest.mark.parametrize(("known", "told"), [(None, 0), (0, 1), (40, 41.5)])
    def test_it_restarts_the_give_up_clock_and_the_backoff(self, known, told):
        seen = []
        backoff = lambda task, _: seen.append(task.attempts) or MINUTE  # noqa: E731 - a recorder
        task = waiting(silent_for=9 * DAY, progress=known, late_answers=2)
        clocks = answered(task, progress=told, backoff=backoff)
        assert (clocks["silent_since"], clocks["attempts"], seen) == (NOW, 1, [0])
        assert (clocks["next_lookup_at"], clocks["late_answers"]) == (NOW + MINUTE, None)

    @pytest.mark.parametrize("told", [None, 0, 39, 40])
    def test_no_more_than_was_known_is_no_sign_of_life(self, told):
        clocks = answered(waiting(silent_for=HOUR, progress=40), progress=told)
        assert (clocks["silent_since"], clocks["attempts"]) == (NOW - HOUR, 5)


class TestGivingUp:
    @pytest.mark.parametrize(("before", "after"), [(None, 1), (1, 2)])
    def test_a_late_answer_is_asked_for_again_soon(self, before, after):
        clocks = answered(waiting(silent_for=DAY, late_answers=before))
        assert (clocks["late_answers"], clocks["gave_up_at"]) == (after, None)
        assert clocks["next_lookup_at"] == NOW + WAIT_AFTER_LATE_ANSWER

    def test_enough_of_them_end_it(self):
        clocks = answered(waiting(silent_for=DAY, late_answers=ENOUGH_LATE_ANSWERS - 1))
        assert (clocks["late_answers"], clocks["gave_up_at"], clocks["next_lookup_at"]) == (3, NOW, None)

    def test_never_while_the_clock_is_not_steady_but_right_after(self):
        task = waiting(silent_for=DAY, late_answers=2)
        for _ in range(3):
            clocks = answered(task, clock_is_steady=False)
            assert (clocks["gave_up_at"], clocks["next_lookup_at"]) == (None, NOW + WAIT_AFTER_LATE_ANSWER)
            assert clocks["late_answers"] == ENOUGH_LATE_ANSWERS
            task = waiting(silent_for=DAY, late_answers=clocks["late_answers"])
        assert answered(task)["gave_up_at"] == NOW

    def test_an_answer_in_time_forgets_the_late_ones(self):
        assert answered(waiting(silent_for=DAY - SECOND, late_answers=2))["late_answers"] is None

    def test_pauses_do_not_count(self):
        pauses = [Paused(NOW - 2 * HOUR, NOW - HOUR)]
        for silent_for, late in ((DAY + HOUR - SECOND, None), (DAY + HOUR, 1)):
            assert answered(waiting(silent_for=silent_for), pauses=pauses)["late_answers"] == late


class TestDoubt:
    @pytest.mark.parametrize(
        ("told_before", "is_doubted"), [(GRACE - SECOND, False), (GRACE, True), (DAY, True)]
    )
    def test_a_success_that_upstream_does_not_confirm_in_time_is_in_doubt(self, told_before, is_doubted):
        clocks = answered(waiting(succeeded_at=NOW - told_before))
        assert (clocks["doubted_at"] is not None) == is_doubted
        assert clocks["next_lookup_at"] == NOW + HOUR  # it is asked about all the same

    def test_pauses_do_not_count(self):
        pauses = iter([Paused(NOW - 2 * MINUTE, None)])
        assert answered(waiting(succeeded_at=NOW - GRACE), pauses=pauses)["doubted_at"] is None

    @pytest.mark.parametrize("late_answers", [0, 2])
    def test_progress_and_giving_up_take_no_doubt_away(self, late_answers):
        task = waiting(silent_for=DAY, succeeded_at=NOW - DAY, late_answers=late_answers)
        assert answered(task)["doubted_at"] == answered(task, progress=1)["doubted_at"] == NOW

    @pytest.mark.parametrize(("grace", "after"), [(0, 60), (10, 60), (30, 180)])
    def test_it_comes_after_six_times_the_grace_and_not_before_a_minute(self, grace, after):
        assert doubt_after(timedelta(seconds=grace)) == timedelta(seconds=after)


class TestLongestWaits:
    def test_nothing_waits_longer(self):
        known, doubtful = longest_waits(GRACE, HOUR)
        assert (known, doubtful) == (
            LONGEST_WAIT + 10 * MINUTE,
            LONGEST_UNKNOWN_WAIT * 1.2 + 10 * MINUTE,
        )

    def test_a_longer_setting_counts(self):
        assert longest_waits(GRACE, 9 * DAY) == longest_waits(9 * DAY, GRACE) == (9 * DAY, 9 * DAY)


SPAN = 60
minutes = st.integers(-SPAN, 2 * SPAN)


class TestPauses:
    @given(st.lists(st.tuples(minutes, st.none() | minutes), max_size=6))
    def test_each_moment_counts_once_however_they_overlap(self, spans):
        pauses = [
            Paused(NOW + began * MINUTE, None if ended is None else NOW + ended * MINUTE)
            for began, ended in sorted(spans, key=lambda span: span[0])
        ]
        inside = [
            any(began <= minute and (ended is None or minute < ended) for began, ended in spans)
            for minute in range(SPAN)
        ]
        assert paused_within(pauses, NOW, NOW + SPAN * MINUTE) == sum(inside) * MINUTE

    def test_none_take_no_time(self):
        assert paused_within([], NOW, NOW + DAY) == timedelta(0)


@given(
    task=st.builds(
        Waiting,
        attempts=st.integers(0, 50),
        silent_since=st.timedeltas(timedelta(0), 3 * DAY).map(lambda ago: NOW - ago),
        late_answers=st.none() | st.integers(0, ENOUGH_LATE_ANSWERS),
        succeeded_at=st.none() | st.timedeltas(timedelta(0), DAY).map(lambda ago: NOW - ago),
        progress=st.none() | st.floats(0, 100),
        is_named=st.booleans(),
        is_over=st.booleans(),
    ),
    progress=st.none() | st.floats(0, 100),
    is_absent=st.booleans(),
    clock_is_steady=st.booleans(),
)
def test_a_task_is_asked_about_again_until_it_is_given_up_or_over(task, progress, is_absent, clock_is_steady):
    clocks = answered(task, progress=progress, is_absent=is_absent, clock_is_steady=clock_is_steady)
    gave_up = clocks["gave_up_at"] is not None
    assert (clocks["next_lookup_at"] is None) == (gave_up or task.is_over)
    assert clocks["next_lookup_at"] is None or clocks["next_lookup_at"] > NOW
    assert not gave_up or (clock_is_steady and NOW - task.silent_since >= DAY)
