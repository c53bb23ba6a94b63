import threading
from datetime import timedelta

import psycopg
import pytest

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.engine.db import on_postgresql
from receiver.ledger.evidence import ABSENT, Answer
from receiver.ledger.models import Task
from receiver.ledger.reading import queries
from tests.factories import (
    DAY,
    apply,
    body,
    claim,
    finished_item,
    look_up,
    record,
    register,
)

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def task(task_id: str = "t1") -> Task:
    found = queries.find_task(task_id)
    assert found is not None
    return found


class TestDue:
    def test_it_tells_whether_anything_is_due_of_either_kind(self):
        assert not store.is_anything_due(NOW)
        register("open", now=NOW, grace=MINUTE)
        assert [store.is_anything_due(NOW + n * SECOND) for n in (0, 59, 60)] == [False, False, True]
        Task.delete().execute()
        record(body("to-be-confirmed"), NOW, confirm=True)
        assert [store.is_anything_due(NOW + n * SECOND) for n in (-1, 0)] == [False, True]
        look_up([finished_item("to-be-confirmed")], NOW)
        assert not store.is_anything_due(NOW + DAY)


class TestClaim:
    def test_a_claimed_task_is_claimed_by_nobody_else_until_the_lease_lapses(self):
        register("t1", now=NOW, grace=timedelta(0))
        assert claim(NOW).ids == ["t1"]
        assert claim(NOW + 2 * MINUTE - SECOND).ids == []
        assert claim(NOW + 2 * MINUTE).ids == ["t1"]

    def test_the_longest_due_come_first(self):
        for age, task_id in enumerate(("c", "b", "a")):
            register(task_id, now=NOW - age * MINUTE, grace=timedelta(0))
        assert sorted(claim(NOW, limit=2).ids) == ["a", "b"]

    def test_all_are_of_the_service_of_the_longest_due(self, other_service):
        register("theirs", now=NOW - MINUTE, grace=timedelta(0), service=other_service)
        register("ours", now=NOW, grace=timedelta(0))
        record(body("to-be-confirmed"), NOW - HOUR, confirm=True)
        register("to-be-confirmed", now=NOW)
        first, second = claim(NOW), claim(NOW)
        assert (first.service, first.ids) == (other_service, ["theirs"])
        assert sorted(second.ids) == ["ours", "to-be-confirmed"]

    def test_while_another_claims_all_of_one_service_there_is_work_in_the_next(self, ledger, other_service):
        if not on_postgresql():
            pytest.skip("SQLite has one writer at a time")
        register("theirs", now=NOW - MINUTE, grace=timedelta(0), service=other_service)
        register("ours", now=NOW, grace=timedelta(0))
        with psycopg.connect(ledger) as another:
            another.execute("SELECT FROM task WHERE id = 'theirs' FOR UPDATE")
            assert claim(NOW).ids == ["ours"]

    def test_a_task_of_a_service_that_only_a_newer_version_knows_is_in_nobodys_way(self):
        register("unknown", now=NOW - MINUTE, grace=timedelta(0), service="of-a-newer-version")
        register("ours", now=NOW, grace=timedelta(0))
        assert (claim(NOW).ids, claim(NOW).ids) == (["ours"], [])

    def test_concurrent_claims_share_the_tasks_without_overlap(self):
        register(*(f"task-{n:03}" for n in range(200)), now=NOW, grace=timedelta(0))
        claims: list[store.Claim] = []
        threads = [
            threading.Thread(target=lambda: claims.extend(claim(NOW, limit=10) for _ in range(5)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(i for claimed in claims for i in claimed.ids) == [f"task-{n:03}" for n in range(200)]

    def test_a_task_that_becomes_due_while_it_is_asked_about_is_asked_about_by_nobody_else(self):
        register("t1", now=NOW, grace=timedelta(0))
        claimed = claim(NOW)
        record(body(), NOW, confirm=True)
        store.ask_now("t1", NOW)
        assert claim(NOW + SECOND).ids == []
        apply(claimed, {"t1": Answer(error=ABSENT)}, NOW + SECOND)
        assert claim(NOW + SECOND).ids == ["t1"]

    def test_what_is_given_back_is_due_again_and_charged_nothing(self):
        register("t1", now=NOW, grace=timedelta(0))
        store.release(claim(NOW), NOW + SECOND)
        assert claim(NOW + SECOND).ids == ["t1"]
        assert (task().attempts, task().lookup_count) == (0, 0)

    def test_giving_back_late_does_not_disturb_who_claimed_it_since(self):
        register("t1", now=NOW, grace=timedelta(0))
        stale = claim(NOW)
        claim(NOW + 5 * MINUTE)
        store.release(stale, NOW + 5 * MINUTE)
        assert task().next_lookup_at == NOW + 7 * MINUTE

    def test_a_settled_task_can_be_asked_about(self):
        record(body())
        assert claim().ids == []
        assert store.ask_now("t1", NOW)
        assert claim().ids == ["t1"]

    def test_nobody_can_ask_about_a_task_never_heard_of(self):
        assert not store.ask_now("unknown", NOW)
