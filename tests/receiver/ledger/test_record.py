"""What large callbacks of tasks that nobody else names may store."""

import json
from unittest import mock

import pytest

from receiver.clock import utcnow
from receiver.ledger import record as recording
from receiver.ledger.budget import Budget
from receiver.ledger.models import Delivery, Task
from receiver.ledger.record import KEPT_OF_LARGE
from tests.factories import body, finished_item, item, look_up, record, register

pytestmark = pytest.mark.usefixtures("ledger")

PROMPT = "x" * 50_000


@pytest.fixture
def _spent(ledger, monkeypatch):
    """No more bytes may be stored, until the end of the test."""
    monkeypatch.setattr(recording, "_budget", Budget(0, within=60))


def kept_bytes() -> list[int]:
    return [len(bytes(row.body)) for row in Delivery.select().order_by(Delivery.id)]


def test_what_is_not_stored_is_not_charged(monkeypatch):
    budget = Budget(2 * 51_000, within=10**9)
    monkeypatch.setattr(recording, "_budget", budget)
    with monkeypatch.context() as broken:
        broken.setattr(recording, "_statuses", mock.Mock(side_effect=ZeroDivisionError))
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                record(body("t1", prompt=PROMPT))
    assert record(body("t1", prompt=PROMPT)).problem is None


def test_beyond_the_budget_large_bodies_are_kept_by_their_beginning(monkeypatch):
    # Each stores its body and its result.
    monkeypatch.setattr(recording, "_budget", Budget(3 * 2 * 51_000, within=10**9))
    outcomes = [record(body(f"forged-{n}", prompt=PROMPT)) for n in range(10)]
    assert [outcome.problem and outcome.problem.code for outcome in outcomes] == [None] * 3 + [
        "shortened"
    ] * 7
    assert kept_bytes()[2:5] == [len(body("forged-2", prompt=PROMPT)), KEPT_OF_LARGE, KEPT_OF_LARGE]
    assert Task.select().where(Task.callback_response.is_null()).count() == 7


@pytest.mark.usefixtures("_spent")
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
