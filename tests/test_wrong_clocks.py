"""The real reconciler while its clock is changed: which tasks it asked about, and what became of them."""

import os
import signal
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses
from receiver.ledger.engine.db import writing
from receiver.ledger.models import Pause, ReconcileRun, Task
from tests.factories import finished_item, item, register
from tests.processes import Backstop, wait_until

DUE = timedelta(0)
HOUR, DAY = 3600, 86400


@pytest.fixture
def deployment(ledger, tmp_path, stand_in):
    """Makes a deployment whose reconcilers' clock `set_clock` sets."""
    with Backstop(tmp_path, stand_in.url, DATABASE_URL=ledger, WRONG_CLOCK=tmp_path / "ahead") as backstop:
        yield backstop


@pytest.fixture
def set_clock(tmp_path):
    """Sets the reconcilers' clock ahead by some seconds: set_clock(-3600)."""

    def set_to(seconds):
        (tmp_path / "new").write_text(str(seconds))
        os.replace(tmp_path / "new", tmp_path / "ahead")

    set_to(0)
    return set_to


def start(deployment):
    return deployment.start("reconcile", "-m", "tests.wrong_clock", "reconcile")


def run_once(deployment):
    return deployment.command("tests.wrong_clock", "reconcile", "--once")


def runs():
    return ReconcileRun.select().count()


def status_of(task_id):
    return Task.get_by_id(task_id).status


@pytest.mark.parametrize("hours", [-8, 8])
def test_a_reconciler_goes_on_when_its_clock_is_set(deployment, set_clock, stand_in, hours):
    set_clock(-hours * HOUR if hours < 0 else 0)
    process = start(deployment)
    wait_until(lambda: runs() >= 1)
    set_clock(0 if hours < 0 else hours * HOUR)
    stand_in.add_record(finished_item("t1"))
    register("t1", grace=DUE)
    wait_until(lambda: status_of("t1") == "succeeded")
    stand_in.add_record(finished_item("t2"))
    register("t2", grace=DUE)
    wait_until(lambda: status_of("t2") == "succeeded")
    assert deployment.stop(process) == 0
    told = [line for line in deployment.log("reconcile").splitlines() if "The clock was set" in line]
    assert len(told) == 1
    assert f"set {'back' if hours < 0 else 'ahead'} by 28800 s" in told[0]


def test_a_stop_ends_the_pacemaker_too(deployment, set_clock):
    process = start(deployment)
    wait_until(lambda: runs() >= 1)
    set_clock(-8 * HOUR)
    assert deployment.stop(process, signal.SIGINT) == 0


def test_what_was_given_up_two_days_ahead_is_open_again(deployment, set_clock, stand_in):
    register("running", "unknown", grace=DUE)
    stand_in.add_record(item("running"))
    set_clock(2 * DAY)
    run_once(deployment)
    Task.update(status="expired", next_lookup_at=None, gave_up_at=utcnow() + timedelta(days=2)).execute()
    set_clock(0)
    for task_id in ("running", "unknown"):
        stand_in.add_record(finished_item(task_id))
    process = start(deployment)
    wait_until(lambda: {status_of("running"), status_of("unknown")} == {"succeeded"})
    deployment.stop(process)
    assert "while its clock was ahead. 2 tasks" in deployment.log("reconcile")
    assert {task.gave_up_at for task in Task.select()} == {None}


def test_a_running_reconciler_opens_them_when_its_clock_is_set_back(deployment, set_clock, stand_in):
    set_clock(2 * DAY)
    process = start(deployment)
    wait_until(lambda: runs() >= 1)
    register("given-up")
    with writing():  # in turn with the reconciler
        Task.update(status="expired", next_lookup_at=None, gave_up_at=utcnow() + timedelta(days=2)).execute()
    stand_in.add_record(finished_item("given-up"))
    set_clock(0)
    wait_until(lambda: status_of("given-up") == "succeeded")
    assert deployment.stop(process) == 0


def test_a_429_under_a_clock_that_was_ahead_pauses_nothing(deployment, set_clock, stand_in):
    register("t1", grace=DUE)
    stand_in.add_record(finished_item("t1"))
    stand_in.respond_next(429, {"Retry-After": "60"})
    set_clock(8 * HOUR)
    run_once(deployment)
    assert Pause.select().count() == 1
    set_clock(0)
    assert pauses.current_pause(utcnow()) is None
    assert run_once(deployment).returncode == 0
    assert status_of("t1") == "succeeded"


def test_an_account_that_was_paused_ahead_of_time_is_probed(deployment, set_clock, stand_in):
    register("t1", grace=DUE)
    stand_in.add_record(finished_item("t1"))
    stand_in.options.account_error = "used_up"
    set_clock(8 * HOUR)
    run_once(deployment)
    stand_in.options.account_error = None
    set_clock(0)
    assert run_once(deployment).returncode == 0
    assert (status_of("t1"), pauses.current_pause(utcnow())) == ("succeeded", None)
