"""What callbacks of tasks that nobody else names may store."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest

from receiver.clock import utcnow
from receiver.ledger import record as recording
from receiver.ledger.admission import BURST_MINUTES, KEPT_OF_LARGE, MOST_OF_KNOWN, UnknownBudget
from receiver.ledger.budget import Budget
from receiver.ledger.models import Delivery, Task
from receiver.ledger.record import Recorded
from receiver.logs import request_id
from tests import factories
from tests.factories import body, finished_item, item, look_up, progress_body, register

pytestmark = pytest.mark.usefixtures("ledger")

PROMPT = "x" * 50_000


SPENT = UnknownBudget.a_minute(rows=1000, size=0)  # no more bytes may be stored


def limited(rows: int = 1000, size: int = 2**40) -> UnknownBudget:
    """Return a budget that is not filled again while a test runs."""
    return UnknownBudget(Budget(rows, within=10**9), Budget(size, within=10**9))


def record(payload: bytes, confirm: bool = False, unknown: UnknownBudget = SPENT, **fields: Any) -> Recorded:
    return factories.record(payload, confirm=confirm, unknown=unknown, **fields)


def kept_bytes() -> list[int]:
    return [len(bytes(row.body)) for row in Delivery.select().order_by(Delivery.id)]


def test_what_is_not_stored_is_not_charged(monkeypatch):
    budget = limited(rows=1, size=2 * 51_000)
    with monkeypatch.context() as broken:
        broken.setattr(recording, "_statuses", mock.Mock(side_effect=ZeroDivisionError))
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                record(body("t1", prompt=PROMPT), unknown=budget)
    assert record(body("t1", prompt=PROMPT), unknown=budget).problem is None


def test_beyond_the_budget_large_bodies_are_kept_by_their_beginning():
    budget = limited(size=3 * 2 * 51_000)  # each stores its body and its result
    outcomes = [record(body(f"forged-{n}", prompt=PROMPT), unknown=budget) for n in range(10)]
    assert [outcome.problem and outcome.problem.code for outcome in outcomes] == [None] * 3 + [
        "shortened"
    ] * 7
    assert kept_bytes()[2:5] == [len(body("forged-2", prompt=PROMPT)), KEPT_OF_LARGE, KEPT_OF_LARGE]
    assert Task.select().where(Task.callback_response.is_null()).count() == 7


def test_each_callback_of_a_task_is_a_line_of_the_log(caplog):
    caplog.set_level(logging.INFO, "receiver.ledger.record")
    token = request_id.set("r1")
    try:
        record(body("t1"))
    finally:
        request_id.reset(token)
    record(b"nonsense")
    record(progress_body("t2"), unknown=limited(rows=0))
    (line,) = [line for record in caplog.records for line in record.msg.lines]
    assert line == ("Task t1: a callback came, the task is succeeded.", {"task": "t1", "request": "r1"})


class TestSpent:
    def test_its_task_is_asked_about_at_once_even_where_callbacks_are_not_confirmed(self):
        record(body("t1", prompt=PROMPT), confirm=False)
        task = Task.get()
        assert (task.status, task.settled_at, task.callback_response) == ("pending", None, None)
        assert task.next_lookup_at <= utcnow()
        look_up([finished_item("t1")])
        assert (Task.get().status, Task.get().settled_by) == ("succeeded", "lookup")

    def test_the_delivery_tells_what_was_kept_of_what(self):
        record(body("t1", prompt=PROMPT))
        row = Delivery.get()
        assert (row.task_id, row.verdict, row.size) == ("t1", "succeeded", len(body("t1", prompt=PROMPT)))
        assert json.loads(row.problem)["code"] == "shortened"

    def test_small_bodies_and_tasks_that_somebody_else_names_are_kept_whole(self):
        register("registered")
        record(body("found"), confirm=True)
        look_up([item("found")])
        for task_id in ("registered", "found"):
            assert record(body(task_id, prompt=PROMPT)).status == "succeeded"
        assert record(body("small")).status == "succeeded"
        assert min(kept_bytes()[1:3]) > len(PROMPT)

    def test_a_result_that_is_known_stays(self):
        record(body("t1"))
        assert record(body("t1", prompt=PROMPT)).status == "succeeded"
        assert Task.get().callback_response is not None

    def test_repeated_it_makes_a_task_due_only_once(self):
        record(body("t1", prompt=PROMPT))
        look_up([])
        due_at = Task.get().next_lookup_at
        for n in range(5):
            record(body("t1", prompt=f"{PROMPT}{n}"))
        assert Task.get().next_lookup_at == due_at > utcnow()

    def test_large_headers_are_bounded_too(self):
        record(body("t1"), headers=[("X", "x" * 5000)])
        assert (Delivery.get().headers, kept_bytes()) == ("[]", [len(body("t1"))])
        record(body("t2"), headers=[("X", "x")])
        assert Task.get_by_id("t2").status == "succeeded"

    def test_what_names_no_task_is_bounded_too(self):
        outcome = record(b"<html>" + b"x" * 50_000)
        assert (outcome.task_id, outcome.problem.code) == (None, "shortened")
        assert (Delivery.get().verdict, kept_bytes()) == ("unreadable", [KEPT_OF_LARGE])
        assert json.loads(Delivery.get().problem)["code"] == "bad_json"


class TestManyOfOneTask:
    def test_beyond_its_first_ones_they_count_as_those_of_unknown_tasks(self):
        register("t1", "t2")
        Task.update(delivery_count=MOST_OF_KNOWN - 1).execute()
        budget = limited(rows=3, size=0)
        told = [record(body("t1", prompt=PROMPT), unknown=budget).problem for _ in range(5)]
        # The last one that passes is charged already: it is stored before it is counted.
        assert [one and one.code for one in told] == [None, None, "shortened", "shortened", "unknown_refused"]
        assert record(body("t2", prompt=PROMPT), unknown=budget).problem is None
        assert [task.delivery_count - MOST_OF_KNOWN for task in Task.select().order_by(Task.id)] == [3, 0]

    def test_while_the_limits_last_all_are_kept_whole(self):
        register("t1")
        Task.update(delivery_count=10 * MOST_OF_KNOWN).execute()
        budget = limited()
        assert record(progress_body("t1", prompt=PROMPT), unknown=budget).problem is None
        assert record(body("t1", prompt=PROMPT), unknown=budget).status == "succeeded"
        assert min(kept_bytes()) > len(PROMPT)


class TestRows:
    def test_beyond_the_limit_callbacks_of_unknown_tasks_are_not_kept_and_say_so(self):
        budget = limited(rows=3)
        outcomes = [record(body(f"forged-{n}"), unknown=budget) for n in range(5)]
        assert [one.problem and one.problem.code for one in outcomes] == [None] * 3 + ["unknown_refused"] * 2
        assert (outcomes[4].task_id, outcomes[4].status) == (None, None)
        assert (Delivery.select().count(), Task.select().count()) == (3, 3)
        assert record(b"no JSON", unknown=budget).problem.code == "unknown_refused"

    def test_known_tasks_always_pass_and_use_nothing_up(self):
        register("registered")
        record(body("found"), confirm=True)
        look_up([item("found")])
        budget = limited(rows=1)
        for task_id in ("registered", "found") * 3:
            assert record(body(task_id), unknown=budget).problem is None
        assert record(body("unregistered"), unknown=budget).status == "succeeded"
        assert record(body("forged"), unknown=budget).problem.code == "unknown_refused"
        for task_id in ("registered", "found"):
            assert record(body(task_id), unknown=budget).status == "succeeded"

    def test_a_group_of_both_keeps_what_is_known(self):
        """Many callbacks at once share a commit; the answers are those of each."""
        register(*(f"ours-{n}" for n in range(20)))
        budget, ids = limited(rows=0), [f"{whose}-{n}" for n in range(20) for whose in ("ours", "forged")]
        with ThreadPoolExecutor(8) as senders:
            told = dict(
                zip(ids, senders.map(lambda one: record(body(one), unknown=budget), ids), strict=True)
            )
        assert {one for one in ids if told[one].problem is None} == {one for one in ids if "ours" in one}
        assert Delivery.select().count() == 20

    def test_what_waited_in_the_spool_is_kept(self):
        assert factories.record(body("t1"), unknown=None).status == "succeeded"

    def test_a_burst_may_be_as_large_as_what_comes_in_ten_minutes(self):
        rows = UnknownBudget.a_minute(rows=2, size=0).rows
        assert [rows.take(1) for _ in range(2 * BURST_MINUTES + 1)] == [True] * 2 * BURST_MINUTES + [False]
