"""What a clock that was ahead has written, and what is made of it when the clock is right again."""

from datetime import timedelta

import pytest

from receiver.clock import utcnow
from receiver.ledger import mending, pauses, runs
from receiver.ledger.models import Pause, ReconcileRun, Task
from receiver.ledger.reading import queries, tally
from receiver.ledger.store import ask_now
from tests.factories import body, claim, item, look_up, progress_body, record, register

NOW_DUE, HOUR, DAY, YEAR = timedelta(0), timedelta(hours=1), timedelta(days=1), timedelta(days=365)
KNOWN, DOUBTFUL = 2 * HOUR, 30 * HOUR


def mend(now):
    return mending.mend_schedule(now, known=KNOWN, doubtful=DOUBTFUL)


def run_at(moment):
    runs.close_run(runs.open_run("test:1", moment), moment, {})


def give_up(*ids, at):
    Task.update(status="expired", next_lookup_at=None, gave_up_at=at).where(Task.id.in_(ids)).execute()


class TestLease:
    def test_one_that_was_taken_a_year_ahead_keeps_nobody_from_the_task(self, ledger):
        now = utcnow()
        register("t1", now=now, grace=NOW_DUE)
        assert claim(now + YEAR).ids == ["t1"]
        assert claim(now).ids == []  # its next look-up is a year ahead too
        ask_now("t1", now)
        assert claim(now).ids == ["t1"]
        assert claim(now).ids == []

    @pytest.mark.parametrize("theirs", [timedelta(seconds=120), timedelta(minutes=50)])
    def test_a_lease_of_another_process_with_other_settings_holds(self, ledger, theirs):
        now = utcnow()
        register("t1", now=now, grace=NOW_DUE)
        claim(now, lease=theirs)
        ask_now("t1", now)
        assert claim(now, lease=timedelta(seconds=30)).ids == []


class TestSchedule:
    def test_what_would_be_asked_about_later_than_anything_can_set_is_due(self, ledger):
        now = utcnow()
        register("known", now=now + YEAR)
        record(body("unconfirmed"), now + YEAR, confirm=True)
        register("unconfirmed", now=now)
        Task.update(next_lookup_at=now + YEAR).where(Task.id == "unconfirmed").execute()
        record(progress_body("doubtful"), now + YEAR)
        register("soon", now=now)
        record(progress_body("later"), now + DOUBTFUL - 2 * HOUR)
        assert mend(now) == 3
        assert sorted(claim(now).ids + claim(now).ids) == ["doubtful", "known", "unconfirmed"]
        assert {task.silent_since <= now for task in Task.select().where(Task.id != "later")} == {True}
        assert mend(now) == 0

    def test_a_lease_of_now_is_left_to_who_has_it(self, ledger):
        now = utcnow()
        register("t1", now=now, grace=NOW_DUE)
        claim(now)
        assert mending.mend_schedule(now, known=NOW_DUE, doubtful=NOW_DUE) == 0

    def test_it_goes_on_portion_by_portion(self, ledger, monkeypatch):
        monkeypatch.setattr(mending, "_AT_ONCE", 10)
        now = utcnow()
        register(*(f"task-{n:02}" for n in range(25)), now=now + YEAR)
        assert mend(now) == 25
        assert len(claim(now).ids) == 25


class TestRunInTheFuture:
    def test_what_it_gave_up_is_open_again(self, ledger, monkeypatch):
        monkeypatch.setattr(mending, "_AT_ONCE", 10)
        now = utcnow()
        ids = [f"task-{n:02}" for n in range(25)]
        register(*ids, "expired-before", now=now - HOUR, grace=NOW_DUE)
        give_up("expired-before", at=now - timedelta(minutes=1))
        look_up([item(task_id) for task_id in ids], now + 2 * DAY)
        give_up(*ids, at=now + 2 * DAY)
        assert mending.mend_after_future(now) == 25
        assert sorted(claim(now).ids) == ids
        assert {(task.status, task.gave_up_at) for task in Task.select().where(Task.id.in_(ids))} == {
            ("pending", None)
        }
        assert Task.get_by_id("expired-before").status == "expired"
        counted = tally.count_outcomes()
        assert (counted.tasks, counted.pending, counted.expired) == (26, 25, 1)

    def test_what_it_doubted_is_confirmed_after_all(self, ledger):
        now = utcnow()
        record(body("t1"), now - HOUR, confirm=True)
        Task.update(
            next_lookup_at=None, doubted_at=now + 2 * DAY, gave_up_at=now + 2 * DAY, late_answers=3
        ).execute()
        run_at(now + 2 * DAY)
        assert mending.mend_after_future(now) == 1
        task = Task.get()
        assert (task.status, task.disputed, task.doubted_at, task.gave_up_at) == (
            "succeeded",
            False,
            None,
            None,
        )
        assert (task.late_answers, claim(now).ids) == (None, ["t1"])

    def test_what_it_settled_stays(self, ledger):
        now = utcnow()
        register("t1", now=now - HOUR)
        give_up("t1", at=now + 2 * DAY)
        record(body("t1"), now)
        run_at(now + 2 * DAY)
        mending.mend_after_future(now)
        assert (Task.get().status, Task.get().settled_by) == ("succeeded", "callback")

    def test_what_waits_for_its_time_is_due_and_that_once(self, ledger):
        now = utcnow()
        register("t1", now=now + 8 * HOUR)
        run_at(now + 8 * HOUR)
        assert mending.mend_after_future(now) == 1
        assert claim(now).ids == ["t1"]
        assert {run.started_at for run in ReconcileRun.select()} == {now}
        register("t2", now=now)
        assert mending.mend_after_future(now) == 0
        assert queries.reconciler_seen_at(now) == now

    @pytest.mark.parametrize("seconds", [-5, 0, 30])
    def test_without_one_nothing_is_touched(self, ledger, seconds):
        now = utcnow()
        register("t1", now=now)
        run_at(now + timedelta(seconds=seconds))
        rows = list(Task.select().dicts())
        assert mending.mend_after_future(now) == 0
        assert list(Task.select().dicts()) == rows


class TestPause:
    @pytest.mark.parametrize("ahead", [2 * timedelta(minutes=1), 8 * HOUR, YEAR])
    @pytest.mark.parametrize("wait", [timedelta(seconds=5), HOUR])
    def test_a_throttle_that_began_in_the_future_is_void(self, ledger, ahead, wait):
        now = utcnow()
        register("t1", now=now, grace=NOW_DUE)
        pauses.throttle("429", wait, now + ahead)
        assert pauses.current_pause(now) is None
        assert claim(now).ids == ["t1"]

    def test_one_of_another_machine_with_a_slightly_different_clock_holds(self, ledger):
        now = utcnow()
        pauses.throttle("429", HOUR, now + timedelta(seconds=20))
        assert pauses.current_pause(now) is not None

    def test_those_of_the_future_do_not_lengthen_those_of_now(self, ledger):
        now = utcnow()
        for _ in range(5):
            pauses.throttle("429", None, now + 8 * HOUR)
        assert pauses.throttle("429", None, now) == timedelta(seconds=1)

    def test_an_account_that_was_resumed_ahead_of_time_may_be_asked(self, ledger):
        now = utcnow()
        pauses.pause_account("used_up", now)
        pauses.resume(now + HOUR / 2)
        assert pauses.current_pause(now + timedelta(minutes=1)) is None
        assert len(pauses.pauses_since(now)) == 1

    def test_an_account_that_was_resumed_ahead_of_time_stops_no_give_up_clock_until_then(self, ledger):
        now = utcnow()
        pauses.pause_account("used_up", now - HOUR)
        pauses.resume(now + 8 * HOUR)
        pauses.throttle("429", HOUR, now)
        mending.mend_after_future(now + HOUR / 60)
        ends = sorted(paused.ended_at for paused in pauses.pauses_since(now - DAY))
        assert ends == [now + HOUR / 60, now + HOUR]

    def test_a_probe_that_is_too_far_ahead_is_due(self, ledger):
        now = utcnow()
        pauses.pause_account("used_up", now + 8 * HOUR)
        assert pauses.take_probe(now)
        assert not pauses.take_probe(now)
        assert Pause.get().next_probe_at <= now + pauses.LONGEST_PROBE
