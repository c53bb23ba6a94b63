"""How long recoveries took, and how late they were, on both databases."""

from datetime import timedelta

import pytest

from receiver.clock import to_unix, utcnow
from receiver.ledger.models import Task
from receiver.ledger.reading import recoveries
from tests.factories import body, finished_item, look_up, record, register

NOW = utcnow()
DAY, MINUTE, SECOND = timedelta(days=1), timedelta(minutes=1), timedelta(seconds=1)
pytestmark = pytest.mark.usefixtures("ledger")


def test_the_slowest_recovery_is_from_submission_to_result():
    register("quick", now=NOW - MINUTE, grace=timedelta(0))
    register("slow", now=NOW - 2 * MINUTE, grace=timedelta(0), submitted_at=NOW - timedelta(seconds=252.5))
    register("came", now=NOW - 30 * MINUTE)
    record(body("came"), NOW)
    assert recoveries.slowest_recovery(NOW - DAY) is None
    look_up([finished_item("quick"), finished_item("slow")], NOW)
    assert recoveries.slowest_recovery(NOW - DAY).total_seconds() == pytest.approx(252.5, abs=0.01)
    assert recoveries.slowest_recovery(NOW - 1.5 * MINUTE).total_seconds() == pytest.approx(60, abs=0.01)
    assert recoveries.slowest_recovery(NOW) is None


def test_a_recovery_that_seems_to_end_before_it_began_took_no_time():
    register("t1", now=NOW - MINUTE, grace=timedelta(0), submitted_at=NOW + MINUTE)  # another clock's
    look_up([finished_item("t1")], NOW)
    assert recoveries.slowest_recovery(NOW - DAY) == timedelta(0)
    assert Task.get().took == timedelta(0)


def recover(task_id, late, heard_of=NOW - MINUTE):
    """Let a look-up bring a result, so long after upstream's end of the task."""
    register(task_id, now=heard_of, grace=timedelta(0))
    look_up(
        [finished_item(task_id) | {"finished_at": to_unix(NOW - late) if late is not None else None}], NOW
    )


def test_lateness_is_from_upstreams_end_of_a_task_to_our_knowing_its_result():
    recover("t1", timedelta(seconds=9.5), NOW - 3 * MINUTE)
    recover("t2", None, NOW - 2 * MINUTE)
    recover("t3", -2 * SECOND)  # upstream's clock is ahead
    record(body("came"), NOW)
    late = recoveries.lateness(10)
    assert late[0:2] == [timedelta(0), None]
    assert late[2].total_seconds() == pytest.approx(9.5, abs=0.01)
    assert len(late) == 3


def test_only_the_newest_count():
    for n in range(4):
        recover(f"t{n}", n * 10 * SECOND, NOW - n * MINUTE)
    assert [round(one.total_seconds()) for one in recoveries.lateness(2)] == [0, 10]
