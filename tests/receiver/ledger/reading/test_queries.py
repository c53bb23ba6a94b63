"""What the pages ask beyond lists: which runs failed."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import runs
from receiver.ledger.reading import queries

NOW = utcnow()
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
pytestmark = pytest.mark.usefixtures("ledger")


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
