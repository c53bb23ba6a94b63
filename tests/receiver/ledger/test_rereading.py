"""Stored deliveries are read again. An older version, which cannot read some of them, has received them."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.clock import utcnow
from receiver.ledger import record as recording
from receiver.ledger import rereading
from receiver.ledger.admission import UnknownBudget
from receiver.ledger.models import Delivery, Event, Task
from receiver.ledger.rereading import Chosen, Reread, Rules
from receiver.upstream import results
from receiver.upstream.results import Unreadable
from tests.factories import (
    TIMETABLE,
    body,
    failure_body,
    finished_item,
    look_up,
    progress_body,
    record,
    register,
    task,
)
from tests.processes import wait_until
from tests.properties import on_a_ledger
from tests.receiver.ledger.test_order import Step, asked, callback, outcome
from tests.rereading import HOUR, newest, older_version, received, reread

pytestmark = pytest.mark.usefixtures("ledger")

SECOND = timedelta(seconds=1)


def total(some: list[Reread]) -> tuple[int, int, Counter[tuple[str, str]]]:
    changes = sum((one.changes for one in some), Counter[tuple[str, str]]())
    return sum(one.read for one in some), sum(one.tasks for one in some), changes


class TestADeliveryThatWasUnreadable:
    def test_it_settles_its_task_and_makes_the_event(self):
        register("t1", now=utcnow() - 2 * HOUR)
        received(body("t1"))
        assert (task().status, Event.select().count()) == ("pending", 0)
        before = utcnow()
        assert total(reread()) == (1, 1, {("unreadable", "succeeded"): 1})
        assert (task().status, task().settled_by, task().delivery_count) == ("succeeded", "callback", 1)
        assert task().settled_at >= before
        assert [(event.task_id, event.type) for event in Event] == [("t1", "task.succeeded")]

    def test_it_makes_its_task_known_since_it_came(self):
        received(body("t1"), ref="order-1", service="suno")
        reread(confirm=True)
        assert (task().ref, task().service, task().created_at) == ("order-1", "suno", newest().received_at)
        # Due now, not for an hour already: nothing has been late.
        assert utcnow() - timedelta(minutes=1) < task().next_lookup_at <= utcnow()

    def test_what_came_stays_as_it_was(self):
        received(body("t1"), headers=[("X-A", "1")], remote_addr="192.0.2.1", token=0)
        before = newest()
        reread()
        after = newest()
        for name in (
            "uid",
            "received_at",
            "body",
            "headers",
            "size",
            "digest",
            "token",
            "remote_addr",
            "ref",
        ):
            assert getattr(after, name) == getattr(before, name), name
        assert (after.verdict, after.problem, after.task_id) == ("succeeded", None, "t1")
        assert after.reread_at >= before.received_at + HOUR / 2
        first = after.read_at_first
        assert (first.verdict, first.task_id, json.loads(first.problem)["code"]) == (
            "unreadable",
            None,
            "no_task_id",
        )

    def test_the_first_reading_stays_however_often_it_is_read(self):
        received(body("t1"))
        reread()
        with older_version(lambda *_: results.read_callback(failure_body("t1"))):
            reread()
        assert (newest().verdict, newest().read_at_first.verdict) == ("failed", "unreadable")
        with older_version():
            reread()
        # It stays with the task that it was of, and takes nothing back.
        assert (newest().verdict, newest().task_id, newest().read_at_first.verdict) == (
            "unreadable",
            "t1",
            "unreadable",
        )
        assert (task().status, task().delivery_count) == ("succeeded", 1)


class TestADeliveryThatWasRead:
    def test_one_that_says_the_same_is_marked_and_changes_nothing(self):
        record(body("t1"), utcnow() - HOUR)
        look_up([])
        before = task().__data__
        assert total(reread()) == (1, 0, {})
        assert (task().__data__, newest().first_reading) == (before, None)
        assert newest().reread_at is not None
        assert Event.select().count() == 1

    def test_what_the_same_bytes_say_now_replaces_what_they_said(self):
        def without_error(*arguments: Any) -> Any:
            return results.replace(results.read_callback(*arguments), error=None)

        with older_version(without_error):
            record(failure_body("t1"), utcnow() - HOUR)
        assert task().callback_error is None
        assert total(reread()) == (1, 1, {})
        assert json.loads(task().callback_error)["code"] == "bad_request"

    def test_one_that_names_another_task_is_counted_there(self):
        with older_version(lambda *_: results.read_callback(body("wrong"))):
            record(body("t1"), utcnow() - HOUR)
        reread()
        assert (task("wrong").delivery_count, task("t1").delivery_count) == (0, 1)
        assert newest().read_at_first.task_id == "wrong"

    def test_one_that_contradicts_upstream_makes_the_task_due_now(self):
        received(failure_body("t1"))
        register("t1", now=utcnow() - HOUR)
        look_up([finished_item("t1")], utcnow() - 2 * SECOND)
        reread()
        assert task().disputed
        assert utcnow() - timedelta(minutes=1) < task().next_lookup_at <= utcnow()


class TestWhatIsNotReadAgain:
    @pytest.mark.parametrize("code", ["too_large", "incomplete"])
    def test_one_of_which_only_a_part_was_kept(self, code):
        whole = body("t1")
        cut = Unreadable(code, "cut")
        kept = whole if code == "incomplete" else whole[:-10]
        callback = recording.Callback(body=kept, size=len(whole), cut=cut)
        recording.record(callback, utcnow() - HOUR, timetable=TIMETABLE, confirm=False)
        (told,) = reread()
        assert (told.read, told.partial, newest().reread_at) == (0, 1, None)

    def test_a_shortened_one_keeps_its_verdict(self):
        spent = UnknownBudget.a_minute(rows=10, size=0)
        record(body("t1", prompt="x" * 50_000), utcnow() - HOUR, unknown=spent)
        assert reread()[0].partial == 1
        assert newest().verdict == "succeeded"

    def test_those_that_were_not_chosen(self):
        old, other = received(body("old"), ago=3 * HOUR), received(body("other"), ago=2 * HOUR)
        record(body("t1"), utcnow() - HOUR)
        record(failure_body("t2"), utcnow() - HOUR)
        assert total(reread(task="t1"))[0] == total(reread(verdicts=frozenset({"failed"})))[0] == 1
        assert total(reread(ago=90 * timedelta(minutes=1)))[0] == 2
        assert total(reread(until=utcnow() - 90 * timedelta(minutes=1), since=utcnow() - 2.5 * HOUR))[0] == 1
        read = {row.id for row in Delivery.select().where(Delivery.first_reading.is_null(False))}
        assert read == {other}
        assert total(reread(verdicts=frozenset({"unreadable"}))) == (1, 1, {("unreadable", "succeeded"): 1})
        assert Delivery.get_by_id(old).task_id == "old"


class TestMeanwhile:
    def test_a_delivery_that_is_deleted_makes_no_task(self, monkeypatch):
        record(body("t1"), utcnow() - HOUR)

        def read_slowly(*arguments: Any) -> Any:
            Delivery.delete().execute()
            Task.delete().execute()
            return read(*arguments)

        read = rereading._read
        monkeypatch.setattr(rereading, "_read", read_slowly)
        reread()
        assert Task.select().count() == 0

    @pytest.mark.parametrize("database_url", ["postgresql", "pooler"], indirect=True)  # SQLite has one writer
    def test_a_task_that_a_delivery_no_longer_names_is_locked_in_its_turn(self, ledger):
        register("a", "b")
        with older_version(lambda *_: results.read_callback(body("a"))):
            record(body("b"), utcnow() - HOUR)
        with psycopg.connect(ledger) as other, ThreadPoolExecutor(1) as thread:
            other.execute("SELECT FROM task WHERE id = 'a' FOR UPDATE")
            told = thread.submit(reread)
            wait_until(lambda: _is_waited_for(ledger))
            other.execute("SELECT FROM task WHERE id = 'b' FOR UPDATE NOWAIT")
            other.commit()
            assert total(told.result())[0] == 1
        assert (task("a").delivery_count, task("b").delivery_count) == (0, 1)


def _is_waited_for(url: str) -> bool:
    with psycopg.connect(url) as connection:
        waiting = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        return connection.execute(waiting).fetchone() is not None


def test_a_dry_run_tells_the_same_and_changes_nothing():
    for number in range(3):
        received(body(f"t{number}"))
    assert total(reread(keep=False)) == (3, 3, {("unreadable", "succeeded"): 3})
    assert (Task.select().count(), Event.select().count()) == (0, 0)
    assert Delivery.select().where(Delivery.reread_at.is_null()).count() == 3
    assert total(reread()) == (3, 3, {("unreadable", "succeeded"): 3})


def test_it_goes_in_portions_of_rows_and_bytes_that_are_each_durable(monkeypatch):
    monkeypatch.setattr(rereading, "_PLACES_AT_ONCE", 5)
    monkeypatch.setattr(rereading, "_AT_ONCE", 3)
    monkeypatch.setattr(rereading, "_BYTES_AT_ONCE", 4000)
    at = utcnow() - HOUR  # all at one moment: a place is a moment and a number
    with older_version():
        for number in range(7):
            record(body(f"t{number}", prompt="x" * (5000 if number == 1 else 1)), at)
    rules = Rules(TIMETABLE, False, results.LARGEST)
    sizes, settled = [], []
    for told in rereading.reread(Chosen(at, utcnow()), rules):
        sizes.append(told.read)
        settled.append(Task.select().count())
        assert told.reached == at
    assert [size for size in sizes if size] == [2, 3, 2]
    assert sorted({*settled}) == [2, 5, 7]


def test_many_of_one_task_are_read_together():
    register("t1", now=utcnow() - 2 * HOUR)
    for progress in (80, 20, 50):
        received(progress_body("t1", progress=progress))
    received(body("t1"))
    assert total(reread()) == (4, 1, {("unreadable", "pending"): 3, ("unreadable", "succeeded"): 1})
    assert (task().status, task().delivery_count) == ("succeeded", 4)
    assert Event.select().count() == 1


def too_old(make: Callable[..., bytes], **fields: Any) -> Step:
    def step(task_id: str) -> None:
        with older_version():
            record(make(task_id, **fields), utcnow() - HOUR)

    return step


def read_again(_: str) -> None:
    reread()


BODIES: list[tuple[Callable[..., bytes], dict[str, Any]]] = [
    (body, {}),
    (body, {"image_url": "https://x/other.png", "trace_id": "trace-b"}),
    (failure_body, {}),
    (failure_body, {"code": "used_up"}),
    (progress_body, {"progress": 30}),
    (progress_body, {"progress": 80, "trace_id": "trace-a"}),
]
OTHERS = [asked(finished_item), lambda task_id: register(task_id, type="imagine", ref="order-a")]


@on_a_ledger
@given(st.data())
def test_in_any_order_and_however_often_the_task_is_as_if_all_had_been_readable(data: st.DataObject):
    some = data.draw(st.lists(st.sampled_from(range(len(BODIES))), min_size=1, max_size=4, unique=True))
    others = data.draw(st.lists(st.sampled_from(OTHERS), max_size=2))
    readable = [callback(BODIES[n][0], **BODIES[n][1]) for n in some]
    unreadable = [too_old(BODIES[n][0], **BODIES[n][1]) for n in some]
    again = data.draw(st.lists(st.just(read_again), max_size=2))
    shuffled = data.draw(st.permutations([*unreadable, *others, *again]))
    assert outcome([*shuffled, read_again]) == outcome([*readable, *others])
