"""One run against a real server and a real database."""

import itertools
import json
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from receiver.clock import utcnow
from receiver.ledger import pauses, runs, store
from receiver.ledger.models import LearnedPace, Lookup, Pause, ReconcileRun, Task
from receiver.ledger.pace import Pace
from receiver.ledger.reading import listing, queries
from receiver.upstream import client as upstream_module
from receiver.upstream import services
from receiver.upstream.date import Comparison
from receiver.upstream.errors import UpstreamError
from reconcile import asking
from reconcile import run as run_module
from tests.callers import make_reconciler
from tests.clocks import SetClock
from tests.factories import body, claim, finished_item, item, progress_body, record, register
from tests.processes import wait_until
from tests.upstream import Options, StandIn

NOW_DUE = timedelta(0)
A_BUSY_MACHINE = timedelta(seconds=30)  # registers what is due in less time


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def make_settings(make_settings):
    """Settings under which due tasks do not wait for company."""
    return lambda **variables: make_settings(**{"RECONCILE_GRACE": 0} | variables)


@pytest.fixture
def reconciler(ledger, make_settings, stand_in, stop, clock):
    return make_reconciler(make_settings(RECONCILE_MAX_RATE=0), stand_in, stop, clock)


def statuses() -> dict[str, str]:
    return {task.id: task.status for task in Task.select()}


def test_a_clock_that_differs_from_upstreams_is_kept_with_the_run_and_logged_once(
    stand_in, reconciler, clock, caplog
):
    register("t1", grace=NOW_DUE)
    upstream = reconciler._caller.upstream
    upstream._clocks = Comparison(now=lambda: utcnow() + timedelta(days=2))
    for _ in range(3):
        reconciler.run(due_by=clock.now())
    told = [run.clock_ahead for run in ReconcileRun.select()]
    assert all(abs(seconds - 2 * 24 * 3600) < 60 for seconds in told), told
    assert caplog.text.count("This machine's clock is wrong") == 1
    upstream._clocks._now = utcnow
    reconciler.run(due_by=clock.now())
    assert abs(ReconcileRun.select().order_by(ReconcileRun.id.desc()).get().clock_ahead) < 60


def test_it_settles_what_is_due_and_counts(stand_in, reconciler):
    register("done", "failing", "running", "unknown", grace=NOW_DUE)
    register("later")
    stand_in.add_record(finished_item("done"))
    stand_in.add_record(item("failing", {"success": False, "error": {"code": "x"}}, state="failed"))
    stand_in.add_record(item("running"))
    counts = reconciler.run()
    assert statuses() == {
        "done": "succeeded",
        "failing": "failed",
        "running": "pending",
        "unknown": "pending",
        "later": "pending",
    }
    assert (counts.due, counts.asked, counts.settled, counts.running, counts.absent) == (4, 4, 2, 1, 1)
    assert (counts.calls, counts.errors, counts.error) == (1, 0, None)
    row = ReconcileRun.get()
    assert (row.due, row.settled, row.calls, row.finished_at is not None) == (4, 2, 1, True)
    assert sorted(lookup.verdict for lookup in Lookup.select()) == [
        "absent",
        "failed",
        "pending",
        "succeeded",
    ]


class TestTaskOfAnAssumedService:
    """A callback's body does not tell its service: a task is looked for in all services in use."""

    @pytest.fixture(autouse=True)
    def in_use(self, ledger):
        for service in ("suno", "veo"):
            register(f"of-{service}", service=service)

    def test_it_is_found_where_it_is(self, stand_in, reconciler):
        record(body("t1"), confirm=True)
        stand_in.add_record(finished_item("t1"), "veo")
        assert [reconciler.run().calls for _ in range(4)] == [1, 1, 1, 0]
        task = Task.get_by_id("t1")
        assert (task.service, task.service_is_assumed, task.confirmed) == ("veo", False, True)
        assert task.attempts == 1  # as if it had been found at once

    def test_one_that_nobody_knows_is_absent_and_is_looked_for_from_the_first_again(
        self, stand_in, reconciler
    ):
        record(body("t1"), confirm=True)
        assert [reconciler.run().calls for _ in range(4)] == [1, 1, 1, 0]
        task = Task.get_by_id("t1")
        assert (task.service, task.lookup_count, task.attempts) == ("midjourney", 3, 1)
        assert task.next_lookup_at > utcnow()
        assert [lookup.verdict for lookup in Lookup.select()] == ["absent"]

    def test_a_named_service_is_believed(self, stand_in, reconciler):
        record(body("t1"), confirm=True, service="suno")
        stand_in.add_record(finished_item("t1"), "veo")
        assert [reconciler.run().calls for _ in range(2)] == [1, 0]
        task = Task.get_by_id("t1")
        assert (task.service, task.lookup_count, task.confirmed) == ("suno", 1, None)


def test_a_run_with_nothing_due_asks_nobody_and_is_a_row_all_the_same(stand_in, reconciler):
    register("later")
    assert reconciler.run().calls == 0
    assert stand_in.calls == []
    assert ReconcileRun.get().finished_at is not None


def test_it_asks_in_batches_with_so_many_calls_in_flight_and_not_more(ledger, make_settings, stop):
    ids = [f"task-{n:03}" for n in range(230)]
    register(*ids, grace=NOW_DUE)
    with StandIn(Options(latency=0.3)) as stand_in:  # longer than a claim takes on a busy machine
        for task_id in ids:
            stand_in.add_record(finished_item(task_id))
        settings = make_settings(RECONCILE_BATCH_SIZE=10, RECONCILE_CONCURRENCY=3, RECONCILE_MAX_RATE=0)
        counts = make_reconciler(settings, stand_in, stop).run()
        stats = stand_in.stats()
    assert (counts.settled, counts.calls) == (230, 23)
    assert (stats["max_in_flight"], stats["max_ids"], stats["lookup_ids"]) == (3, 10, 230)


def test_it_keeps_to_the_rate_limit(ledger, make_settings, stand_in, stop):
    register(*(f"task-{n}" for n in range(6)), grace=NOW_DUE)
    settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_MAX_RATE=20)
    began = time.monotonic()
    make_reconciler(settings, stand_in, stop).run()
    assert len(stand_in.calls) == 6
    assert time.monotonic() - began >= 5 / 20


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504])
def test_an_error_is_recorded_and_loses_no_task(stand_in, reconciler, status):
    register("t1", grace=NOW_DUE)
    stand_in.respond_next(status, body=b"<html>")
    counts = reconciler.run()
    task = queries.find_task("t1")
    assert task.status == "pending"
    assert str(status) in task.last_lookup_error
    assert task.next_lookup_at is not None
    assert task.attempts == 1
    assert (counts.errors, Lookup.get().verdict) == (1, "error")
    assert str(status) in ReconcileRun.get().error


@pytest.mark.parametrize(
    "error",
    ["401 invalid_token", "401 token_expired", "403 used_up", "403 disabled", "400 disabled", "404 no_api"],
)
def test_an_error_of_the_account_ends_the_run_with_one_line_and_leaves_the_tasks(
    ledger, make_settings, stop, caplog, error
):
    ids = [f"task-{n}" for n in range(20)]
    register(*ids, grace=NOW_DUE)
    with StandIn(Options(latency=0)) as stand_in:
        status, code = error.split()
        stand_in.respond_next(int(status), body=json.dumps({"error": {"code": code}}).encode(), times=20)
        settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_MAX_RATE=0)
        with caplog.at_level(logging.ERROR):
            counts = make_reconciler(settings, stand_in, stop).run()
        assert 1 <= len(stand_in.calls) <= settings.reconcile_concurrency + 1
    assert code in counts.error
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert counts.asked == Lookup.select().count() == 0
    assert {task.next_lookup_at <= utcnow() for task in Task.select()} == {True}
    assert {(task.attempts, task.lookup_count, task.last_lookup_error) for task in Task.select()} == {
        (0, 0, None)
    }


class TestPause:
    """What one reconciler learns of upstream's wish for no calls holds for all of them."""

    @pytest.fixture
    def at(self, clock):
        """Stops the clock: at(seconds) from the beginning of the test."""
        clock.at = utcnow() + A_BUSY_MACHINE

        def set_to(seconds):
            clock.ahead = timedelta(seconds=seconds)

        set_to(1)
        return set_to

    @pytest.fixture
    def other(self, make_settings, stand_in, stop, clock):
        return make_reconciler(make_settings(RECONCILE_MAX_RATE=0), stand_in, stop, clock)

    def test_an_account_wide_error_stops_all_and_one_probe_at_growing_intervals_ends_it(
        self, stand_in, reconciler, other, at, clock, caplog
    ):
        register("a", "b", grace=NOW_DUE)
        for task_id in ("a", "b"):
            stand_in.add_record(finished_item(task_id))
        stand_in.options.account_error = "used_up"
        at(1)
        reconciler.run()
        asked = []
        for seconds in range(1, 400, 3):
            at(seconds)
            before = len(stand_in.calls)
            assert {reconciler.run().settled, other.run().settled} == {0}
            asked += [seconds] * (len(stand_in.calls) - before)
        assert asked == [31, 91, 211]  # after 30 s, then 60, 120, 240
        assert all(len(call.body["ids"]) == 1 for call in stand_in.calls[1:])
        assert {(task.attempts, task.status) for task in Task.select()} == {(0, "pending")}
        stand_in.options.account_error = None
        at(452)
        assert other.run().settled == 2
        assert (Pause.select().count(), pauses.current_pause(clock.now())) == (1, None)
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1

    def test_who_comes_with_a_better_token_need_not_wait_for_the_next_probe(
        self, stand_in, reconciler, at, clock
    ):
        register("a", grace=NOW_DUE)
        stand_in.add_record(finished_item("a"))
        stand_in.options.account_error = "invalid_token"
        at(1)
        reconciler.run()
        stand_in.options.account_error = None
        at(3)
        assert reconciler.run().settled == 0
        pauses.probe_at_once(clock.now())
        assert reconciler.run().settled == 1

    def test_a_probe_that_meets_another_error_does_not_end_it(self, stand_in, reconciler, at):
        register("a", grace=NOW_DUE)
        stand_in.options.account_error = "invalid_token"
        at(1)
        reconciler.run()
        stand_in.options.account_error = None
        stand_in.respond_next(500)
        at(40)
        reconciler.run()
        assert pauses.current_pause(utcnow()) is not None

    @pytest.mark.parametrize(
        "error",
        ["400 bad_request", "400 invalid_id", "404 not_found", "404 no_task", "413 request_too_large"],
    )
    def test_a_probe_whose_answer_shows_that_the_token_is_accepted_ends_it(
        self, stand_in, reconciler, at, clock, error
    ):
        register("a", "b", grace=NOW_DUE)
        for task_id in ("a", "b"):
            stand_in.add_record(finished_item(task_id))
        self.pause(stand_in, reconciler, at)
        status, code = error.split()
        stand_in.respond_next(int(status), body=json.dumps({"error": {"code": code}}).encode())
        reconciler.run()
        assert pauses.current_pause(clock.now()) is None
        assert list(statuses().values()).count("succeeded") == 1  # in the same run

    @pytest.mark.parametrize(
        "error",
        [
            "400 disabled",
            "400 invalid_token",
            "400 no_token",
            "400 api_not_implemented",
            "402 insufficient_balance",
            "403 forbidden",
            "404 no_api",
            "429 too_many_requests",
            "503 busy",
            "400 ",
            "404 ",
            "413 ",
        ],
    )
    def test_any_other_error_of_a_probe_does_not(self, stand_in, reconciler, at, error):
        register("a", grace=NOW_DUE)
        self.pause(stand_in, reconciler, at)
        status, code = error.split(" ")
        stand_in.respond_next(int(status), body=json.dumps({"error": {"code": code}}).encode())
        reconciler.run()
        assert len(stand_in.calls) == 2
        assert Pause.get(Pause.account).ended_at is None

    @staticmethod
    def pause(stand_in, reconciler, at):
        stand_in.options.account_error = "used_up"
        at(1)
        reconciler.run()
        stand_in.options.account_error = None
        at(40)

    def test_a_run_while_paused_is_no_good_run(self, stand_in, reconciler, other):
        register("a", grace=NOW_DUE)
        stand_in.options.account_error = "invalid_token"
        reconciler.run()
        assert "paused" in other.run().error
        assert queries.last_good_run() is None

    @pytest.mark.parametrize("header", ["60", "date"])
    def test_retry_after_holds_for_all(self, stand_in, reconciler, other, at, header):
        register("a", grace=NOW_DUE)
        stand_in.add_record(finished_item("a"))
        value = (
            format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
            if header == "date"
            else header
        )
        stand_in.respond_next(429, {"Retry-After": value})
        reconciler.run()
        assert Task.get().attempts == 0
        for seconds in (20, 30):  # a date is nearer on a busy machine
            at(seconds)
            assert (other.run().calls, reconciler.run().calls) == (0, 0)
        at(90)
        assert other.run().settled == 1

    def test_without_it_the_wait_doubles(self, stand_in, reconciler, at):
        register("a", grace=NOW_DUE)
        stand_in.respond_next(429, times=100)
        waits = []
        for _ in range(4):
            reconciler.run()
            pause = Pause.select().order_by(Pause.id.desc()).get()
            waits.append((pause.ended_at - pause.started_at).total_seconds())
            at(1 + sum(waits) + 0.5 * len(waits))
        assert waits == [1, 2, 4, 8]

    def test_the_give_up_clock_does_not_run_meanwhile(
        self, ledger, make_settings, stand_in, stop, at, clock, monkeypatch
    ):
        monkeypatch.setattr(run_module, "STEADY_AFTER", timedelta(0))
        reconciler = make_reconciler(make_settings(RECONCILE_GIVE_UP_AFTER=100), stand_in, stop, clock)
        register("silent", grace=NOW_DUE)
        stand_in.add_record(item("silent"))
        stand_in.options.account_error = "disabled"
        at(1)
        reconciler.run()
        stand_in.options.account_error = None
        at(1000)
        reconciler.run()
        assert Task.get().status == "pending"
        for seconds in (1420, 1720):
            at(seconds)
            reconciler.run()
        assert Task.get().status == "pending"
        at(2020)
        reconciler.run()
        assert Task.get().status == "expired"


class TestPoison:
    def test_one_bad_id_carries_the_error_and_the_others_are_answered_in_the_same_run(
        self, stand_in, reconciler
    ):
        ids = [f"task-{n:02}" for n in range(50)]
        register(*ids, grace=NOW_DUE)
        for task_id in ids:
            stand_in.add_record(finished_item(task_id))
        stand_in.options.poison = ("task-17",)
        counts = reconciler.run()
        assert (counts.due, counts.asked, counts.settled) == (50, 50, 49)
        assert counts.calls <= 13
        assert counts.errors == 1  # that of the id alone: the others were asked about again
        assert "bad_request" in queries.find_task("task-17").last_lookup_error
        assert [task.id for task in Task.select().where(Task.status == "pending")] == ["task-17"]

    def test_a_code_that_nobody_knows_for_every_call_is_no_poison(
        self, ledger, make_settings, stand_in, stop, caplog
    ):
        ids = [f"task-{n:03}" for n in range(200)]
        register(*ids, grace=NOW_DUE)
        refuse_all(stand_in, 400, "suspended", times=10_000)
        reconciler = make_reconciler(make_settings(RECONCILE_MAX_RATE=0), stand_in, stop)
        assert reconciler.run().calls <= 12  # seven, and what was in flight when the first one failed
        pause = pauses.current_pause(utcnow(), services.DEFAULT.name)
        assert "suspended" in pause.reason
        assert pause.ended_at - pause.started_at >= timedelta(minutes=1)
        assert reconciler.run().calls == 0
        assert Task.select().where(Task.refused_at.is_null(False)).count() == 0

    def test_of_one_batch_its_two_first_levels_suffice(self, stand_in, reconciler):
        register(*(f"task-{n:02}" for n in range(50)), grace=NOW_DUE)
        refuse_all(stand_in, 400, "suspended", times=10_000)
        assert reconciler.run().calls == 7
        assert pauses.current_pause(utcnow(), services.DEFAULT.name) is not None

    @pytest.mark.parametrize("number", [1, 2])
    def test_ids_that_spoil_it_with_a_code_that_nobody_knows_are_found(self, stand_in, reconciler, number):
        ids = [f"task-{n:02}" for n in range(50)]
        register(*ids, grace=NOW_DUE)
        for task_id in ids:
            stand_in.add_record(finished_item(task_id))
        stand_in.options.change({"poison": ids[:number], "poison_code": "strange_id"})
        counts = reconciler.run()
        assert (counts.settled, pauses.pauses_in_force(utcnow())) == (50 - number, [])
        assert Task.select().where(Task.refused_at.is_null(False)).count() == number

    def test_a_lone_task_that_meets_a_code_that_nobody_knows_is_not_refused(self, stand_in, reconciler):
        register("t1", grace=NOW_DUE)
        refuse_all(stand_in, 400, "suspended", times=1)
        reconciler.run()
        assert (Task.get().refused_at, Lookup.get().verdict) == (None, "error")

    @pytest.mark.parametrize("code", ["token_mismatched", "no_token", "api_not_implemented"])
    def test_a_400_that_no_id_provokes_is_not_bisected(self, stand_in, reconciler, code):
        register("a", "b", "c", grace=NOW_DUE)
        stand_in.respond_next(400, body=json.dumps({"error": {"code": code}}).encode(), times=10)
        assert reconciler.run().calls == 1


class TestSize:
    """An answer that is too large for one call is asked for in smaller parts."""

    def test_pictures_in_requests_do_not_keep_a_batch_from_its_answers(
        self, stand_in, reconciler, monkeypatch
    ):
        monkeypatch.setattr(upstream_module, "_MAX_ANSWER_BYTES", 2**20)
        ids = [f"task-{n:02}" for n in range(20)]
        register(*ids, grace=NOW_DUE)
        for task_id in ids:
            picture = {"prompt": "a cat", "image": "data:image/png;base64," + "QUJD" * 30_000}
            stand_in.add_record(finished_item(task_id) | {"request": picture})
        counts = reconciler.run()
        assert (counts.settled, counts.errors) == (20, 0)
        kept = [task.request for task in Task.select()]
        assert max(map(len, kept)) < 1000
        assert {json.loads(request)["prompt"] for request in kept} == {"a cat"}
        assert {"120,022 characters" in request for request in kept} == {True}

    def test_a_task_that_is_too_large_alone_carries_the_error_alone(self, stand_in, reconciler, monkeypatch):
        monkeypatch.setattr(upstream_module, "_MAX_ANSWER_BYTES", 2**18)
        register("large", *(f"task-{n}" for n in range(8)), grace=NOW_DUE)
        for n in range(8):
            stand_in.add_record(finished_item(f"task-{n}"))
        stand_in.add_record(finished_item("large") | {"request": {"image": "x" * 2**19}})
        assert reconciler.run().settled == 8
        assert "too large" in queries.find_task("large").last_lookup_error

    def test_a_batch_that_upstream_calls_too_large_is_halved(self, stand_in, reconciler):
        register("a", "b", grace=NOW_DUE)
        for task_id in ("a", "b"):
            stand_in.add_record(finished_item(task_id))
        refuse_all(stand_in, 413, "request_too_large", times=1)
        assert reconciler.run().settled == 2


def test_it_settles_all_whatever_forms_the_answers_have(stand_in, reconciler):
    stand_in.options.change({"packed": 0.5, "empty_unknown": 1, "most_bytes": 4000})
    register(*(f"task-{n:02}" for n in range(30)), "unknown", grace=NOW_DUE)
    for n in range(30):
        stand_in.add_record(finished_item(f"task-{n:02}"))
    counts = reconciler.run()
    assert (counts.settled, counts.absent, counts.errors) == (30, 1, 0)


def refuse_all(stand_in, status, code, times):
    stand_in.respond_next(status, body=json.dumps({"error": {"code": code}}).encode(), times=times)


class TestConfirmation:
    def test_neither_overdue_tasks_nor_confirmations_keep_the_others_waiting(
        self, ledger, make_settings, stand_in, stop
    ):
        for n in range(3):
            record(body(f"came-{n}"), utcnow() - timedelta(hours=1), confirm=True)
        register("came-0", "came-1", "came-2")
        register("late-0", "late-1", "late-2", grace=NOW_DUE)
        make_reconciler(make_settings(RECONCILE_BATCH_SIZE=4, RECONCILE_CONCURRENCY=1), stand_in, stop).run()
        first, second = (set(call.body["ids"]) for call in stand_in.calls)
        assert {one.partition("-")[0] for one in first} == {"late", "came"}
        assert len(second) == 2

    def test_a_forged_success_does_not_survive_a_look_up(self, stand_in, reconciler):
        record(body("t1"), confirm=True)
        stand_in.add_record(item("t1", {"success": False, "error": {"code": "x"}}, state="failed"))
        reconciler.run()
        task = queries.find_task("t1")
        assert (task.status, task.settled_by, task.confirmed, task.disputed) == (
            "failed",
            "lookup",
            False,
            True,
        )

    def test_an_answer_that_lags_is_asked_for_again_and_only_after_a_while_doubted(
        self, ledger, make_settings, stand_in, stop
    ):
        reconciler = make_reconciler(make_settings(RECONCILE_GRACE=0, RECONCILE_MAX_RATE=0), stand_in, stop)
        record(body("t1"), utcnow() - timedelta(seconds=50), confirm=True)
        stand_in.add_record(item("t1"))
        reconciler.run()
        task = queries.find_task("t1")
        assert (task.status, task.confirmed, task.disputed, task.next_lookup_at > utcnow()) == (
            "succeeded",
            None,
            False,
            True,
        )
        Task.update(next_lookup_at=utcnow(), settled_at=utcnow() - timedelta(seconds=61)).execute()
        reconciler.run()
        task = queries.find_task("t1")
        assert (task.status, task.confirmed, task.disputed, task.next_lookup_at is None) == (
            "succeeded",
            None,
            True,
            False,
        )
        assert [t.id for t in listing.list_tasks(listing.TaskFilter(disputed=True), 10).tasks] == ["t1"]
        Task.update(next_lookup_at=utcnow()).execute()
        stand_in.add_record(finished_item("t1"))
        reconciler.run()
        task = queries.find_task("t1")
        assert (task.confirmed, task.disputed, task.next_lookup_at) == (True, False, None)


def test_what_a_run_counts_adds_up(ledger, make_settings, stand_in, stop):
    register("done", "running", "unknown", now=utcnow() - timedelta(hours=1), grace=NOW_DUE)
    register("unlucky", grace=NOW_DUE)
    record(body("told"), confirm=True)
    record(body("forged"), confirm=True)
    for task_id in ("done", "told", "unlucky"):
        stand_in.add_record(finished_item(task_id))
    stand_in.add_record(item("running"))
    stand_in.add_record(item("forged", {"success": False, "error": {"code": "x"}}, state="failed"))
    stand_in.respond_next(200, body=json.dumps({"items": [finished_item("done"), item("running")]}).encode())
    stand_in.respond_next(500)
    settings = make_settings(RECONCILE_BATCH_SIZE=3, RECONCILE_CONCURRENCY=1, RECONCILE_MAX_RATE=0)
    counts = make_reconciler(settings, stand_in, stop).run()
    assert (counts.due, counts.asked, counts.calls, counts.errors) == (6, 6, 3, 1)
    assert (counts.settled, counts.confirmed, counts.running, counts.absent) == (2, 1, 1, 1)
    assert counts.unanswered == 1
    line = "6 due, 6 asked, 2 settled, 1 confirmed, 1 running, 1 absent, 1 unanswered, 3 calls, 1 errors"
    assert str(counts).startswith(line)
    row = ReconcileRun.get()
    assert (row.confirmed, row.unanswered, row.left) == (1, 1, 0)


def test_a_run_in_progress_writes_down_how_far_it_is_once_a_call_at_most(
    ledger, make_settings, stand_in, stop, monkeypatch
):
    register(*(f"t{n}" for n in range(5)), grace=NOW_DUE)
    settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_CONCURRENCY=1, RECONCILE_MAX_RATE=0)
    seen, note = [], runs.note_progress

    def note_and_look(run_id, now, counts):
        note(run_id, now, counts)
        row = ReconcileRun.get()
        seen.append((row.calls, row.asked))
        assert row.is_in_progress(now)
        assert not row.is_in_progress(now + timedelta(hours=1))  # it was killed
        assert row.left == row.due - row.asked >= 0

    monkeypatch.setattr(runs, "note_progress", note_and_look)
    counts = make_reconciler(settings, stand_in, stop).run()
    assert counts.calls == 5
    assert [calls for calls, _ in seen] == sorted({calls for calls, _ in seen})
    assert len(seen) >= 3
    assert all(calls == asked for calls, asked in seen)
    assert not ReconcileRun.get().is_in_progress(utcnow())


def test_a_run_of_one_call_writes_its_row_no_more_often_than_before(stand_in, reconciler, monkeypatch):
    register("t1", grace=NOW_DUE)
    monkeypatch.setattr(runs, "note_progress", lambda *args: pytest.fail("there was nothing left to do"))
    assert reconciler.run().calls == 1


def test_items_are_matched_by_id_alone(stand_in, reconciler):
    register("a", "b", grace=NOW_DUE)
    items = [
        None,
        {"id": 5},
        "x",
        finished_item("stranger"),
        item("b"),
        {"id": "a", "response": [], "type": 7},
        finished_item("b"),
        item("b"),
    ]
    stand_in.respond_next(200, body=json.dumps({"items": items, "count": 99}).encode())
    counts = reconciler.run()
    assert statuses() == {"a": "pending", "b": "succeeded"}
    assert (counts.settled, counts.running, counts.absent) == (1, 1, 0)


def test_it_confirms_what_only_a_callback_has_settled(stand_in, reconciler):
    record(body("t1"), confirm=True)
    stand_in.add_record(finished_item("t1"))
    counts = reconciler.run()
    task = queries.find_task("t1")
    assert (task.settled_by, task.confirmed, counts.settled, counts.asked) == ("callback", True, 0, 1)
    assert reconciler.run().asked == 0


def test_a_clock_that_jumps_back_an_hour_does_not_make_it_loop(stand_in, reconciler, clock, monkeypatch):
    register("t1", grace=NOW_DUE)
    times = itertools.chain([utcnow()], itertools.repeat(utcnow() - timedelta(hours=1)))
    monkeypatch.setattr(clock, "now", lambda: next(times))
    reconciler.run()
    assert len(stand_in.calls) <= 1


def test_a_clock_that_jumps_an_hour_ahead_and_back_loses_nothing_and_does_not_make_it_loop(
    stand_in, reconciler, clock
):
    register("t1", "t2", grace=NOW_DUE)
    record(body("t3"), confirm=True)
    register("t3")
    for task_id in ("t1", "t2", "t3"):
        stand_in.add_record(item(task_id))
    clock.at = now = utcnow()
    claim(now + timedelta(seconds=1), limit=1)  # by somebody whose clock has not jumped
    clock.ahead = timedelta(hours=1)
    for _ in range(3):
        reconciler.run()
    assert len(stand_in.calls) == 1
    clock.ahead = timedelta(0)
    for _ in range(3):
        reconciler.run()
    assert len(stand_in.calls) == 1
    assert statuses() == {"t1": "pending", "t2": "pending", "t3": "succeeded"}
    for task_id in ("t1", "t2", "t3"):
        stand_in.add_record(finished_item(task_id))
    clock.ahead = timedelta(hours=2)
    reconciler.run()
    assert set(statuses().values()) == {"succeeded"}
    assert {(task.confirmed, task.disputed) for task in Task.select()} == {(True, False)}


def test_a_stop_awaits_the_calls_in_flight_and_gives_the_rest_back(
    ledger, make_settings, stand_in, stop, monkeypatch
):
    ids = [f"task-{n}" for n in range(8)]
    register(*ids, grace=NOW_DUE)
    for task_id in ids:
        stand_in.add_record(finished_item(task_id))
    settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_CONCURRENCY=2, RECONCILE_MAX_RATE=0)
    reconciler = make_reconciler(settings, stand_in, stop)
    upstream, run = reconciler._caller.upstream, asking.Asking
    ask, finish, await_answer = upstream.retrieve_batch, run.finish, run.await_answer
    in_flight, ends, is_awaited = [], threading.Event(), threading.Event()

    def hold(service, asked, *more):
        in_flight.extend(asked)
        assert is_awaited.wait(120)
        return ask(service, asked, *more)

    def note_the_end(self):
        ends.set()
        finish(self)

    def let_them_end(self, timeout):
        if ends.is_set():
            is_awaited.set()
        await_answer(self, timeout)

    upstream.retrieve_batch = hold
    monkeypatch.setattr(run, "finish", note_the_end)
    monkeypatch.setattr(run, "await_answer", let_them_end)
    thread = threading.Thread(target=reconciler.run)
    thread.start()
    wait_until(lambda: len(in_flight) == 2)
    stop.set()
    thread.join(120)
    assert len(stand_in.calls) == 2
    assert list(statuses().values()).count("succeeded") == 2
    assert len(claim().ids) == 6
    assert ReconcileRun.get().finished_at is not None


class TestFairness:
    """A stranger with the callback URL, or ids that upstream refuses, delay other tasks by a bounded share."""

    def test_a_task_that_falls_due_during_a_run_is_asked_before_what_waits_for_confirmation(
        self, make_settings, stand_in, stop, ledger
    ):
        waiting = [f"waiting-{n:03}" for n in range(100)]
        for task_id in waiting:
            record(body(task_id), confirm=True)
            stand_in.add_record(finished_item(task_id))
        register(*waiting)
        self.run_beside(make_settings(RECONCILE_BATCH_SIZE=2, RECONCILE_MAX_RATE=50), stand_in, stop)
        assert self.calls_until_lost_is_asked(stand_in) < 30

    def test_forged_ids_get_one_call_in_four(self, make_settings, stand_in, stop, ledger):
        for n in range(100):
            record(body(f"forged-{n:03}"), confirm=True)
        self.run_beside(make_settings(RECONCILE_BATCH_SIZE=2, RECONCILE_MAX_RATE=50), stand_in, stop)
        assert self.calls_until_lost_is_asked(stand_in) < 30

    def test_ids_that_upstream_refuses_do_not_keep_others_waiting(
        self, make_settings, stand_in, stop, ledger
    ):
        poison = tuple(f"poison-{n:03}" for n in range(60))
        stand_in.options.poison = poison
        for task_id in poison:
            record(progress_body(task_id), utcnow() - timedelta(hours=1))
        settings = make_settings(RECONCILE_BATCH_SIZE=50, RECONCILE_MAX_RATE=50)
        self.run_beside(settings, stand_in, stop)
        assert self.calls_until_lost_is_asked(stand_in) < 30
        refused = list(Task.select().where(Task.refused_at.is_null(False)))
        assert len(refused) == 60
        # It backs off, as for an id that upstream does not know.
        assert min(task.next_lookup_at - task.refused_at for task in refused) >= timedelta(seconds=20)

    def run_beside(self, settings, stand_in, stop):
        """Run, and let a task fall due when the run has begun to ask."""
        stand_in.add_record(finished_item("lost"))
        reconciler = make_reconciler(settings, stand_in, stop)
        running = threading.Thread(target=reconciler.run)
        running.start()
        wait_until(lambda: stand_in.calls)
        register("lost", grace=NOW_DUE)
        self.calls_before = len(stand_in.calls)
        wait_until(lambda: Task.get(Task.id == "lost").status == "succeeded")
        running.join(60)
        assert not running.is_alive()

    def calls_until_lost_is_asked(self, stand_in):
        asked = next(n for n, call in enumerate(stand_in.calls) if "lost" in call.body["ids"])
        return asked - self.calls_before


def test_a_clock_that_jumps_ahead_gives_nothing_up_however_many_answers_come(
    ledger, make_settings, stand_in, stop, clock
):
    """Each run sees the clock five minutes further ahead; really no time passes."""
    now, ahead = utcnow(), itertools.count(0)
    register("t1", now=now, grace=NOW_DUE)
    stand_in.add_record(item("t1"))
    clock.at = now
    reconciler = make_reconciler(make_settings(RECONCILE_MAX_RATE=0), stand_in, stop, clock)
    for minutes in itertools.islice(ahead, 0, 30, 6):
        clock.ahead = timedelta(days=2, minutes=minutes)
        reconciler.run()
    assert len(stand_in.calls) >= 4
    assert statuses() == {"t1": "pending"}


def test_a_run_that_always_finds_more_ends_all_the_same_and_says_so(
    ledger, make_settings, stand_in, stop, monkeypatch
):
    monkeypatch.setattr(run_module, "RUN_FOR_SECONDS", 2.0)
    register(*(f"task-{n:03}" for n in range(100)), grace=NOW_DUE)
    settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_MAX_RATE=5)
    reconciler = make_reconciler(settings, stand_in, stop)
    counts = reconciler.run()
    assert reconciler.has_more
    assert 0 < counts.asked < 100
    assert len(claim(limit=200).ids) == 100 - counts.asked


def test_when_nothing_more_is_due_after_all_there_is_no_more(reconciler):
    reconciler.run()
    reconciler.has_more = True
    reconciler.run()
    assert not reconciler.has_more


def test_while_more_is_due_than_the_rate_lets_through_waits_are_longer(
    ledger, make_settings, stand_in, stop, clock
):
    clock.at = utcnow()
    kind = {"service": "midjourney", "type": "imagine", "mode": "relax"}
    weights = Pace().with_results(600.0 + n for n in range(100)).weights
    LearnedPace.create(**kind, weights=json.dumps(weights), learned_at=clock.at)
    for name in ("calm", "busy"):
        stand_in.add_record(item(name, {"progress": 0}, type="imagine", request={"mode": "relax"}))
    reconciler = make_reconciler(
        make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_MAX_RATE=0), stand_in, stop, clock
    )
    reconciler._paces.read()
    register("calm", grace=NOW_DUE, now=clock.at)
    reconciler.run()
    reconciler.has_more = True  # the last run ended although more was due
    register("busy", grace=NOW_DUE, now=clock.at)
    reconciler.run()
    assert not reconciler.has_more
    next_ones = {task.id: task.next_lookup_at for task in Task.select()}
    assert next_ones["busy"] > next_ones["calm"]


def test_a_run_up_to_a_moment_asks_about_nothing_that_becomes_due_later(stand_in, reconciler):
    register("due", grace=NOW_DUE)
    due_by = utcnow()
    register("later", grace=NOW_DUE, now=due_by + timedelta(microseconds=1))
    assert (reconciler.run(due_by=due_by).asked, reconciler.has_more) == (1, False)
    assert [call.body["ids"] for call in stand_in.calls] == [["due"]]


def test_a_call_that_never_ends_is_dropped(ledger, make_settings, stop, monkeypatch):
    monkeypatch.setattr(upstream_module, "CALL_WITHIN_SECONDS", 0.3)
    register("t1", grace=NOW_DUE)
    with StandIn(Options(rate_hang=1.0, hang_seconds=3)) as stand_in:
        counts = make_reconciler(make_settings(), stand_in, stop).run()
    assert (counts.calls, counts.error) == (1, "no answer from upstream within 0.3 s")
    assert queries.find_task("t1").attempts == 1


def test_a_run_that_breaks_off_is_closed_with_its_error(reconciler, monkeypatch):
    register("t1", grace=NOW_DUE)
    monkeypatch.setattr(store, "apply", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reconciler.run()
    row = ReconcileRun.get()
    assert row.finished_at is not None
    assert "ZeroDivisionError" in row.error


def test_a_stop_does_not_wait_for_a_call_that_hangs(ledger, make_settings, stop, monkeypatch):
    monkeypatch.setattr(asking, "STOP_WITHIN", timedelta(seconds=0.2))
    register("t1", grace=NOW_DUE)
    with StandIn(Options(rate_hang=1.0, hang_seconds=600)) as stand_in:
        thread = threading.Thread(target=make_reconciler(make_settings(), stand_in, stop).run)
        thread.start()
        wait_until(lambda: stand_in.calls)
        stop.set()
        thread.join(25)  # a call may take 30 s
        assert not thread.is_alive()
    assert claim().ids == ["t1"]


class TestOneCall:
    """What goes wrong in one call concerns that call alone."""

    @pytest.mark.parametrize(
        "date",
        [
            "Fri, 31 Dec 9999 23:59:59 -2300",
            "Mon, 01 Jan 2026 00:00:00 +99999999999999999999",
            "Mon, 99999999999999999999 Jan 2026 00:00:00 GMT",
        ],
    )
    def test_a_retry_after_with_an_absurd_zone_ends_no_run(self, stand_in, reconciler, date):
        register("t1", grace=NOW_DUE)
        stand_in.respond_next(503, {"Retry-After": date})
        counts = reconciler.run()
        assert (counts.calls, counts.errors, counts.error[:23]) == (1, 1, "upstream answered 503: ")
        assert Task.get().next_lookup_at > utcnow()

    def test_an_unexpected_error_is_that_of_its_call(self, ledger, make_settings, stand_in, stop, caplog):
        ids = [f"task-{n}" for n in range(4)]
        register(*ids, grace=NOW_DUE)
        for task_id in ids:
            stand_in.add_record(finished_item(task_id))
        settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_MAX_RATE=0, RECONCILE_CONCURRENCY=4)
        reconciler = make_reconciler(settings, stand_in, stop)
        upstream = reconciler._caller.upstream
        ask = upstream.retrieve_batch
        # After an error there is one call at a time to a service.
        all_are_asked = threading.Barrier(4, timeout=120)

        secret = "-".join(["test", "token"])  # the source's lines are in the log

        def fail_once(service, asked, *more):
            all_are_asked.wait()
            if asked == ["task-2"]:
                raise ValueError(f"Invalid header value {secret}")
            return ask(service, asked, *more)

        upstream.retrieve_batch = fail_once
        counts = reconciler.run()
        assert (counts.settled, counts.calls, counts.errors) == (3, 4, 1)
        assert queries.find_task("task-2").last_lookup_error == "the call ended with an unexpected ValueError"
        (told,) = (record.getMessage() for record in caplog.records if record.levelname == "ERROR")
        assert "in fail_once" in told
        assert secret not in told

    def test_after_an_error_the_rest_is_asked_in_the_same_run_once_upstream_answers(
        self, ledger, make_settings, stand_in, stop, monkeypatch
    ):
        register("a", "b", "c", grace=NOW_DUE)
        settings = make_settings(RECONCILE_BATCH_SIZE=1, RECONCILE_MAX_RATE=0, RECONCILE_CONCURRENCY=1)
        reconciler = make_reconciler(settings, stand_in, stop)
        upstream = reconciler._caller.upstream
        ask, claim, asked, is_left_out = upstream.retrieve_batch, store.claim, [], threading.Event()

        def fail_first(service, ids, *more):
            asked.extend(ids)
            if len(asked) == 1:
                raise UpstreamError("upstream answered 500", permanent=False)
            assert is_left_out.wait(120)
            return ask(service, ids, *more)

        def note_what_is_left_out(*args, **more):
            if reconciler._silent:
                is_left_out.set()
            return claim(*args, **more)

        upstream.retrieve_batch = fail_first
        monkeypatch.setattr(store, "claim", note_what_is_left_out)
        assert (reconciler.run().calls, sorted(asked)) == (3, ["a", "b", "c"])

    def test_each_of_its_pages_takes_a_place_and_counts(self, ledger, make_settings, stand_in, stop):
        register("a", "b", "c", grace=NOW_DUE)
        for page in (["a", "x", "x"], ["b", "x", "x"], ["x", "x", "x"], ["c"]):
            items = [finished_item(task_id) for task_id in page]
            stand_in.respond_next(200, body=json.dumps({"items": items}).encode())
        reconciler = make_reconciler(make_settings(RECONCILE_MAX_RATE=10), stand_in, stop)
        began = time.monotonic()
        counts = reconciler.run()
        assert (counts.settled, counts.calls) == (3, 4)
        assert time.monotonic() - began >= 3 / 10
