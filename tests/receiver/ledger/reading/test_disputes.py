"""Disputes: what makes one, who has acknowledged it, and what ends that."""

import threading
from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import runs, store
from receiver.ledger.reading import disputes, queries
from tests.factories import (
    DAY,
    body,
    failed_item,
    failure_body,
    finished_item,
    give_up,
    item,
    look_up,
    progress_body,
    record,
    register,
    task,
)

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
HOUR = timedelta(hours=1)


class TestDoubt:
    @pytest.mark.parametrize("answers", [[], [item("t1")]], ids=["absent", "running"])
    @pytest.mark.parametrize(("payload", "disputed"), [(body(), True), (failure_body(), False)])
    def test_a_success_that_upstream_does_not_confirm_is_disputed_and_a_failure_is_not(
        self, answers, payload, disputed
    ):
        record(payload, NOW - HOUR, confirm=True)
        look_up(answers, NOW)
        assert task().disputed is disputed
        assert task().next_lookup_at > NOW  # it may be confirmed yet

    def test_a_failure_that_nobody_confirms_is_not_asked_about_for_ever(self):
        record(failure_body(), NOW - 2 * DAY, confirm=True)
        give_up([], NOW)
        assert (task().status, task().disputed, task().next_lookup_at) == ("failed", False, None)

    def test_a_failure_that_upstream_contradicts_is_disputed(self):
        record(failure_body(), NOW - HOUR, confirm=True)
        look_up([finished_item()], NOW)
        assert task().disputed is True


class TestAcknowledge:
    @pytest.fixture
    def contradicted(self, ledger):
        record(body(), NOW - HOUR, confirm=True)
        look_up([failed_item()], NOW - HOUR)
        assert store.acknowledge(["t1"], NOW - HOUR) == 1

    @pytest.fixture
    def doubted(self, ledger):
        record(body(), NOW - HOUR, confirm=True)
        look_up([], NOW)
        assert store.acknowledge(["t1"], NOW) == 1

    @pytest.mark.usefixtures("contradicted")
    def test_it_happens_once(self):
        assert store.acknowledge(["t1", "unknown"], NOW) == 0
        assert (task().acknowledged_at, task().disputed) == (NOW - HOUR, True)

    def test_what_is_not_disputed_cannot_be_acknowledged(self):
        record(body(), NOW)
        register("t2")
        assert store.acknowledge(["t1", "t2"], NOW) == 0
        assert task().acknowledged_at is None

    @pytest.mark.usefixtures("contradicted")
    @pytest.mark.parametrize(
        "payload", [body(), body(note="another"), progress_body(), failure_body()], ids=range(4)
    )
    def test_a_callback_that_changes_no_status_leaves_it(self, payload):
        record(payload, NOW, confirm=True)
        assert task().acknowledged_at == NOW - HOUR

    @pytest.mark.usefixtures("contradicted")
    def test_a_look_up_that_says_the_same_leaves_it(self):
        store.ask_now("t1", NOW)
        look_up([failed_item(code="another")], NOW)
        assert task().acknowledged_at == NOW - HOUR

    @pytest.mark.usefixtures("doubted")
    @pytest.mark.parametrize("answers", [[], [item("t1")]], ids=["absent", "running"])
    def test_upstream_that_still_does_not_confirm_leaves_it(self, answers):
        look_up(answers, NOW + HOUR)
        assert (task().acknowledged_at, task().disputed) == (NOW, True)

    @pytest.mark.usefixtures("doubted")
    def test_upstream_that_contradicts_after_all_is_another_dispute(self):
        look_up([failed_item()], NOW + HOUR)
        assert (task().acknowledged_at, task().disputed) == (None, True)

    def test_a_callback_that_contradicts_after_all_is_another_dispute(self):
        record(failure_body(), NOW - HOUR, confirm=True)
        look_up([finished_item()], NOW - HOUR)
        store.acknowledge(["t1"], NOW - HOUR)
        record(body(), NOW)  # now the callbacks agree with upstream
        assert (task().acknowledged_at, task().disputed) == (None, False)

    def test_many_at_once_and_callbacks_beside_them_never_deadlock(self):
        ids = [f"t{n:02}" for n in range(40)]
        for task_id in ids:
            record(body(task_id), NOW - HOUR, confirm=True)
        look_up([failed_item(task_id) for task_id in ids], NOW)
        acknowledged: list[int] = []

        def acknowledge(some):
            acknowledged.append(store.acknowledge(some, NOW))

        def repeat():
            for task_id in ids:
                record(body(task_id, note=threading.get_ident()), NOW)

        work = [lambda: acknowledge(ids), lambda: acknowledge(ids[::-1]), repeat, repeat]
        threads = [threading.Thread(target=each) for each in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert sum(acknowledged) == 40


class TestCount:
    def test_it_counts_what_is_recent_and_not_acknowledged_up_to_a_bound(self, monkeypatch):
        for n in range(5):
            record(body(f"t{n}"), NOW - n * HOUR, confirm=True)
        look_up([failed_item(f"t{n}") for n in range(5)], NOW)
        assert disputes.count_unacknowledged(NOW - 2 * HOUR) == 3
        store.acknowledge(["t1", "t4"], NOW)
        assert disputes.count_unacknowledged(NOW - 2 * HOUR) == 2
        assert disputes.count_unacknowledged(NOW - DAY) == 3
        monkeypatch.setattr(disputes, "MOST_COUNTED", 2)
        assert disputes.count_unacknowledged(NOW - DAY) == 2


class TestKnowsNone:
    def ask(self, *ids, known=(), now=NOW, **counts):
        """Ask upstream about tasks in one run, of which it knows some."""
        register(*ids, now=now, grace=timedelta(0))
        look_up([item(task_id) for task_id in known], now)
        run_id = max(run.id for run in queries.list_runs(1))
        told = {"calls": 1, "asked": len(ids), "absent": len(ids) - len(known), "running": len(known)}
        runs.close_run(run_id, now, told | counts)

    def test_where_upstream_was_not_asked_nothing_is_known(self):
        assert disputes.knows_none(NOW - DAY) is False

    @pytest.mark.parametrize(("number", "told"), [(9, False), (10, True)])
    def test_of_some_tasks_it_tells(self, number, told):
        self.ask(*(f"t{n}" for n in range(number)))
        assert disputes.knows_none(NOW - DAY) is told
        assert disputes.knows_none(NOW + HOUR) is False

    def test_one_that_it_knows_is_enough(self):
        self.ask("known", known=["known"])
        self.ask(*(f"t{n}" for n in range(10)))
        assert disputes.knows_none(NOW - DAY) is False

    def test_a_task_that_is_asked_about_often_is_one(self):
        for hours in range(12):
            self.ask("t1", now=NOW + hours * HOUR)
        assert disputes.knows_none(NOW - DAY) is False

    def test_submissions_that_upstream_refused_say_nothing_about_the_account(self):
        ids = [f"t{n}" for n in range(20)]
        for task_id in ids:
            record(failure_body(task_id), NOW - HOUR, confirm=True)
        self.ask(*ids)
        assert disputes.knows_none(NOW - DAY) is False

    def test_calls_that_failed_tell_nothing(self):
        self.ask(*(f"t{n}" for n in range(10)))
        self.ask("t99", calls=2, errors=1, asked=50)
        assert disputes.knows_none(NOW - DAY) is True
        self.ask("t98", calls=4, errors=4, asked=200, absent=0)
        assert disputes.knows_none(NOW - DAY) is True

    def test_of_what_it_knew_long_ago_nothing_follows(self):
        self.ask("known", known=["known"], now=NOW - 3 * DAY)
        self.ask(*(f"t{n}" for n in range(10)))
        assert disputes.knows_none(NOW - DAY) is True
