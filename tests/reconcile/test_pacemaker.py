import logging
import threading
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from reconcile import pacemaker
from reconcile.pacemaker import Pacemaker, SteadyClock
from tests.processes import wait_until


@pytest.fixture
def clocks(monkeypatch):
    """The two clocks, to be moved: clocks(wall=-3600, monotonic=1)."""
    at = {"wall": utcnow(), "monotonic": 100.0}

    def move(wall=0.0, monotonic=0.0):
        at["wall"] += timedelta(seconds=wall)
        at["monotonic"] += monotonic

    monkeypatch.setattr(pacemaker.wall, "utcnow", lambda: at["wall"])
    monkeypatch.setattr(pacemaker.time, "monotonic", lambda: at["monotonic"])
    return move


def test_a_clock_that_goes_evenly_has_not_jumped(clocks):
    clock = SteadyClock()
    for _ in range(3600):
        clocks(wall=1.0001, monotonic=1)
        assert clock.look()[0] == 0
    assert clock.steady_for() == timedelta(hours=1)


@pytest.mark.parametrize("seconds", [-8 * 3600, -3, 3, 8 * 3600])
def test_it_tells_of_a_jump_and_since_when_there_was_none(clocks, seconds):
    clock = SteadyClock()
    clocks(wall=60, monotonic=60)
    clocks(wall=seconds)
    assert clock.look() == (1, timedelta(seconds=seconds))
    assert clock.steady_for() == timedelta(0)
    clocks(wall=5, monotonic=5)
    assert (clock.look()[0], clock.steady_for()) == (1, timedelta(seconds=5))


def test_small_steps_add_up(clocks):
    clock = SteadyClock()
    for _ in range(5):
        clocks(wall=0.5, monotonic=1)
    assert clock.look()[0] == 1


def test_a_process_that_was_stopped_between_two_clocks_has_seen_no_jump(clocks, monkeypatch):
    clock = SteadyClock()
    times = iter([100.0, 160.0, 160.0])
    monkeypatch.setattr(pacemaker.time, "monotonic", lambda: next(times))
    assert clock.look()[0] == 0


def test_what_follows_a_jump_may_fail_and_the_next_is_followed_all_the_same(monkeypatch, caplog):
    monkeypatch.setattr(pacemaker, "LOOK_EVERY_SECONDS", 0.01)
    shift, called = [timedelta(0)], threading.Semaphore(0)
    monkeypatch.setattr(pacemaker.wall, "utcnow", lambda: utcnow() + shift[0])

    def fail():
        called.release()
        raise RuntimeError("no schedule")

    maker = Pacemaker(SteadyClock(), fail)
    with caplog.at_level(logging.WARNING):
        maker.start()
        try:
            for hours in (-8, 8):
                shift[0] += timedelta(hours=hours)
                assert called.acquire(timeout=30)
            wait_until(lambda: len([r for r in caplog.records if r.levelname == "ERROR"]) == 2)
        finally:
            maker.stop()
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [line.rpartition(".")[0].partition(".")[0] for line in told] == [
        "The clock was set back by 28800 s",
        "The clock was set ahead by 28800 s",
    ]
