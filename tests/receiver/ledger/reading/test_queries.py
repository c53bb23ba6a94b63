"""What the pages ask beyond lists: the slowest recovery, and which runs failed."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.models import Task
from receiver.ledger.reading import queries
from tests.factories import body, finished_item, look_up, record, register

NOW = utcnow()
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
pytestmark = pytest.mark.usefixtures("ledger")


def test_the_slowest_recovery_is_from_submission_to_result():
    register("quick", now=NOW - MINUTE, grace=timedelta(0))
    register("slow", now=NOW - 2 * MINUTE, grace=timedelta(0), submitted_at=NOW - timedelta(seconds=252.5))
    register("came", now=NOW - 30 * MINUTE)
    record(body("came"), NOW)
    assert queries.slowest_recovery(NOW - DAY) is None
    look_up([finished_item("quick"), finished_item("slow")], NOW)
    assert queries.slowest_recovery(NOW - DAY).total_seconds() == pytest.approx(252.5, abs=0.01)
    assert queries.slowest_recovery(NOW - 1.5 * MINUTE).total_seconds() == pytest.approx(60, abs=0.01)
    assert queries.slowest_recovery(NOW) is None


def test_a_recovery_that_seems_to_end_before_it_began_took_no_time():
    register("t1", now=NOW - MINUTE, grace=timedelta(0), submitted_at=NOW + MINUTE)  # another clock's
    look_up([finished_item("t1")], NOW)
    assert queries.slowest_recovery(NOW - DAY) == timedelta(0)
    assert Task.get().took == timedelta(0)


def run(**counts):
    run_id = runs.open_run("test:1", NOW)
    runs.close_run(run_id, NOW, counts)
    return run_id


def test_runs_fail_since_the_last_one_that_was_answered_half_of_its_calls():
    assert queries.failing_runs(3) == []
    run(calls=2, errors=2)
    run(calls=2, errors=1)
    run()
    failing = [
        run(calls=3, errors=2),
        run(calls=1, errors=1),
        run(),
        run(calls=1, errors=1),
        run(calls=1, errors=1),
    ]
    del failing[2]
    runs.open_run("test:1", NOW)
    assert [one.id for one in queries.failing_runs(3)] == failing[:3]
    assert queries.list_runs(1, asked=True)[0].id == failing[-1]
    run(calls=1)
    assert queries.failing_runs(3) == []


def test_without_any_answer_ever_runs_fail_since_the_first():
    first = run(calls=1, errors=1)
    run(calls=1, errors=1)
    assert queries.failing_runs(5)[0].id == first
