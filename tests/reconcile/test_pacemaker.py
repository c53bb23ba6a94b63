import logging
from datetime import timedelta

import pytest

from reconcile import pacemaker
from reconcile.pacemaker import Pacemaker, SteadyClock
from tests.clocks import SetClock, VirtualClock
from tests.processes import wait_until


@pytest.fixture
def clock():
    return VirtualClock()


def test_a_clock_that_goes_evenly_has_not_jumped(clock):
    steady = SteadyClock(clock)
    for _ in range(3600):
        clock.ahead += timedelta(seconds=0.0001)
        clock.wait(1)
        assert steady.look()[0] == 0
    assert steady.steady_for() == timedelta(hours=1)


@pytest.mark.parametrize("seconds", [-8 * 3600, -3, 3, 8 * 3600])
def test_it_tells_of_a_jump_and_since_when_there_was_none(clock, seconds):
    steady = SteadyClock(clock)
    clock.wait(60)
    clock.ahead += timedelta(seconds=seconds)
    assert steady.look() == (1, timedelta(seconds=seconds))
    assert steady.steady_for() == timedelta(0)
    clock.wait(5)
    assert (steady.look()[0], steady.steady_for()) == (1, timedelta(seconds=5))


def test_small_steps_add_up(clock):
    steady = SteadyClock(clock)
    for _ in range(5):
        clock.ahead -= timedelta(seconds=0.5)
        clock.wait(1)
    assert steady.look()[0] == 1


def test_a_process_that_was_stopped_between_two_clocks_has_seen_no_jump(clock, monkeypatch):
    steady = SteadyClock(clock)
    times = iter([100.0, 160.0, 160.0])
    monkeypatch.setattr(clock, "monotonic", lambda: next(times))
    assert steady.look()[0] == 0


def test_what_follows_a_jump_may_fail_and_the_next_is_followed_all_the_same(monkeypatch, caplog):
    monkeypatch.setattr(pacemaker, "LOOK_EVERY_SECONDS", 0.01)
    clock = SetClock()

    def fail():
        raise RuntimeError("no schedule")

    maker = Pacemaker(SteadyClock(clock), fail)
    with caplog.at_level(logging.WARNING):
        maker.start()
        try:
            for number, hours in enumerate((-8, 8), start=1):
                clock.ahead += timedelta(hours=hours)
                wait_until(lambda n=number: len([r for r in caplog.records if r.levelname == "ERROR"]) == n)
        finally:
            maker.stop()
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [line.rpartition(".")[0].partition(".")[0] for line in told] == [
        "The clock was set back by 28800 s",
        "The clock was set ahead by 28800 s",
    ]
