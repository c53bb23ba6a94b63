"""Learning how long tasks take from the results in the ledger, on both databases."""

import threading
from datetime import timedelta

import pytest

from receiver.clock import to_unix, utcnow
from receiver.ledger import paces
from receiver.ledger.models import LearnedPace, Reader
from receiver.ledger.pace import TaskKind
from receiver.ledger.paces import Paces, learn
from tests.factories import GRACE, body, failure_body, finished_item, give_up, look_up, record, register

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
FAST = TaskKind("midjourney", "imagine", "fast")


def known() -> dict[TaskKind, float]:
    """Return how many results each kind has."""
    read = Paces(GRACE)
    read.read()
    return {kind: round(pace.results, 1) for kind, pace in read.timetable.paces.items()}


def median(kind: TaskKind) -> float:
    read = Paces(GRACE)
    read.read()
    return read.timetable.paces[kind].quantile(0.5)


def settle(task_id: str, seconds: float, submitted_at=NOW - HOUR) -> None:
    """Let upstream tell of a task that took so long."""
    times = {"created_at": to_unix(submitted_at), "finished_at": to_unix(submitted_at) + seconds}
    register(task_id, now=submitted_at, grace=timedelta(0))
    item = finished_item(task_id) | times | {"request": {"mode": "fast", "prompt": "p"}}
    look_up([item], submitted_at + 2 * MINUTE)


def test_it_learns_from_upstreams_own_times_for_the_kind_and_the_wider_ones():
    for n in range(5):
        settle(f"t{n}", 40)
    assert learn(NOW) == 5
    assert known() == {FAST: 5, TaskKind("midjourney", "imagine"): 5, TaskKind("midjourney"): 5}
    assert median(FAST) == pytest.approx(40, rel=0.2)


def test_without_them_it_learns_from_the_submission_and_the_callback():
    register("t1", now=NOW - HOUR, type="videos", submitted_at=NOW - HOUR)
    record(body("t1"), NOW - HOUR + 2 * MINUTE)
    register("t2", now=NOW - HOUR, type="videos")
    record(failure_body("t2"), NOW - HOUR + 2 * MINUTE)
    learn(NOW)
    assert known() == {TaskKind("midjourney", "videos"): 2, TaskKind("midjourney"): 2}
    assert median(TaskKind("midjourney", "videos")) == pytest.approx(120, rel=0.2)


def test_it_learns_nothing_where_nobody_knows_how_long_it_took():
    record(body("unregistered"), NOW - HOUR)
    register("recovered", now=NOW - HOUR, grace=timedelta(0))
    look_up([finished_item("recovered") | {"finished_at": None}], NOW - MINUTE)  # it finished before
    register("expired", now=NOW - 2 * DAY, grace=timedelta(0))
    give_up(now=NOW - HOUR)
    assert learn(NOW) == 0
    assert known() == {}


def test_each_result_counts_once():
    settle("t1", 40)
    assert (learn(NOW), learn(NOW)) == (1, 0)
    settle("t2", 40)
    assert (learn(NOW), known()[FAST]) == (1, 2)


def test_two_that_learn_at_once_count_nothing_twice():
    for n in range(20):
        settle(f"t{n}", 40)
    barrier, learned = threading.Barrier(3), []

    def work() -> None:
        barrier.wait()
        learned.append(learn(NOW))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(learned) == 20
    assert known()[FAST] == pytest.approx(20, abs=1)


def test_it_waits_for_the_confirmation_of_a_result():
    register("t1", now=NOW - MINUTE, submitted_at=NOW - MINUTE)
    record(body("t1"), NOW - 9 * SECOND)
    assert (learn(NOW), learn(NOW + SECOND)) == (0, 1)


def test_an_event_from_the_future_does_not_stop_it():
    register("t1", now=NOW)
    record(body("t1"), NOW + DAY)  # by a clock that was ahead
    settle("t2", 40)
    assert learn(NOW) > 0
    assert known()[FAST] == 1


def test_many_results_are_learned_in_portions(monkeypatch):
    monkeypatch.setattr(paces, "_AT_ONCE", 3)
    for n in range(8):
        settle(f"t{n}", 40)
    assert learn(NOW) == 8
    assert Reader.get_by_id("paces").event >= 8


def test_kinds_that_callers_make_up_are_bounded(monkeypatch):
    monkeypatch.setattr(paces, "_MOST_KINDS", 3)
    for n in range(5):
        register(f"t{n}", now=NOW - HOUR, type=f"made-up-{n}", submitted_at=NOW - HOUR)
        record(body(f"t{n}"), NOW - HOUR + MINUTE)
    learn(NOW)
    assert LearnedPace.select().count() == 3
