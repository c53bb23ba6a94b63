"""When open tasks are asked about, without a database."""

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ledger.pace import Pace, TaskKind
from receiver.ledger.timetable import APART, LONGEST_WAIT, SOONEST, Timetable

KIND = TaskKind("s", "imagine", "fast")
GRACE = timedelta(seconds=30)
RNG = random.Random(1)
MINUTE_LONG = Pace().with_results(60 * RNG.lognormvariate(0, 0.3) for _ in range(200))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def known(pace: Pace = MINUTE_LONG, kind: TaskKind = KIND) -> Timetable:
    return Timetable(GRACE, {kind: pace})


class TestUnknownKind:
    def test_the_first_look_up_comes_after_the_grace(self):
        assert Timetable(GRACE).first_wait(KIND) == GRACE
        assert Timetable(GRACE).first_wait(KIND, age=seconds(20)) == seconds(10)
        assert Timetable(GRACE).first_wait(KIND, age=seconds(40)) == seconds(0)

    @pytest.mark.parametrize(("age", "wait"), [(10, 15), (100, 25), (3600, 900), (10**6, 3600)])
    def test_each_next_one_comes_later_by_a_quarter_of_the_age(self, age, wait):
        assert Timetable(GRACE).wait(KIND, seconds(age)) == seconds(wait)

    def test_few_results_are_not_enough(self):
        few = Pace().with_results([200.0] * 15)
        assert known(few).first_wait(KIND) == GRACE


class TestKnownKind:
    def test_it_asks_when_some_have_finished(self):
        first = known().first_wait(KIND)
        assert 0.12 < MINUTE_LONG.finished_by(first.total_seconds()) / MINUTE_LONG.results < 0.18

    def test_it_asks_again_when_some_of_the_rest_have_finished(self):
        age = seconds(60)
        then = age + known().wait(KIND, age)
        left = MINUTE_LONG.results - MINUTE_LONG.finished_by(60)
        since = MINUTE_LONG.finished_by(then.total_seconds()) - MINUTE_LONG.finished_by(60)
        assert then - age == APART or since / left == pytest.approx(0.15)

    def test_when_busy_it_asks_later_and_is_surer(self):
        slow = Pace().with_results(600 * RNG.lognormvariate(0, 0.3) for _ in range(200))
        then = seconds(600) + known(slow).when_busy().wait(KIND, seconds(600))
        left = slow.results - slow.finished_by(600)
        since = slow.finished_by(then.total_seconds()) - slow.finished_by(600)
        assert since / left == pytest.approx(0.25)

    def test_never_sooner_than_upstream_advises(self):
        quick = Pace().with_results([1.0] * 100)
        assert known(quick).first_wait(KIND) == SOONEST
        assert known(quick).wait(KIND, seconds(9)) == APART

    def test_beyond_what_was_ever_seen_the_waits_grow(self):
        waits = [known().wait(KIND, seconds(age)) for age in (400, 4000, 40_000)]
        assert waits == [seconds(60), seconds(600), LONGEST_WAIT]

    def test_the_narrowest_kind_of_which_enough_is_known_counts(self):
        slow = Pace().with_results([600.0] * 100)
        both = Timetable(GRACE, {TaskKind("s", "imagine"): slow, KIND: MINUTE_LONG})
        assert both.first_wait(KIND) < seconds(60)
        assert both.first_wait(TaskKind("s", "imagine", "relax")) > seconds(400)
        assert Timetable(GRACE, {TaskKind("s"): slow}).first_wait(KIND) > seconds(400)
        assert Timetable(GRACE, {TaskKind("other"): slow}).first_wait(KIND) == GRACE


class TestProgress:
    def test_a_task_that_is_nearly_done_is_asked_about_soon(self):
        assert known().wait(KIND, seconds(30), progress=80) == APART
        assert known().wait(KIND, seconds(100), progress=80) == seconds(15)
        assert known().wait(KIND, seconds(120), progress=75) == seconds(20)  # half-way to its end

    def test_a_slow_one_is_left_alone_for_longer(self):
        usual, slow = known().wait(KIND, seconds(40)), known().wait(KIND, seconds(40), progress=10)
        assert slow > 5 * usual

    def test_where_nothing_is_known_it_tells_when_the_result_is_due(self):
        assert Timetable(GRACE).wait(KIND, seconds(60), progress=50) == seconds(60)
        assert Timetable(GRACE).wait(KIND, seconds(60), progress=0) == APART


@given(st.floats(0, 10**7), st.none() | st.floats(0, 100), st.lists(st.floats(0, 10**6), max_size=60))
def test_waits_stay_within_their_bounds(age, progress, lengths):
    timetable = known(Pace().with_results(lengths))
    assert APART <= timetable.wait(KIND, seconds(age), progress) <= LONGEST_WAIT
    assert timetable.first_wait(KIND, seconds(age)) >= timedelta(0)
