import threading
from datetime import timedelta

import psycopg
import pytest

from receiver.clock import utcnow
from receiver.ledger import store
from receiver.ledger.evidence import ABSENT, Answer
from receiver.ledger.models import Task
from tests.factories import (
    DAY,
    apply,
    body,
    claim,
    finished_item,
    look_up,
    record,
    register,
    task,
)

pytestmark = pytest.mark.usefixtures("ledger")

NOW = utcnow()
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def release_all() -> None:
    """End all leases, as if nothing had been claimed."""
    taken = Task.leased_until.is_null(False)
    Task.update(leased_until=None, next_lookup_at=NOW).where(taken, Task.id == "due").execute()
    Task.update(leased_until=None, next_lookup_at=NOW + MINUTE).where(taken, Task.id != "due").execute()


class TestDue:
    def test_results_are_confirmed_at_once_and_others_wait_for_company(self):
        register("open", now=NOW, grace=timedelta(0))
        dues = [store.is_anything_due(NOW + n * SECOND, overdue_for=10 * SECOND) for n in (0, 9, 10)]
        assert dues == [False, False, True]
        record(body("came"), NOW, confirm=True)
        register("came", now=NOW)
        assert store.is_anything_due(NOW, overdue_for=10 * SECOND)

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
        record(body("to-be-confirmed"), NOW, confirm=True)
        register("to-be-confirmed", now=NOW)
        first, second = claim(NOW), claim(NOW)
        assert (first.service, first.ids) == (other_service, ["theirs"])
        assert sorted(second.ids) == ["ours", "to-be-confirmed"]

    def test_a_stream_of_results_of_one_service_keeps_no_other_service_waiting(self, other_service):
        register("theirs", now=NOW - SECOND, grace=timedelta(0), service=other_service)
        for n in range(3):
            record(body(f"came-{n}"), NOW, confirm=True)
            register(f"came-{n}", now=NOW)
        assert claim(NOW, limit=2).ids == ["theirs"]

    def test_results_get_half_of_the_places_while_others_are_due(self):
        for n in range(4):
            record(body(f"came-{n}"), NOW - MINUTE, confirm=True)
            register(f"came-{n}", f"late-{n}", now=NOW - MINUTE, grace=timedelta(0))
        first, second = claim(NOW, limit=6), claim(NOW, limit=6)
        assert sorted(one.partition("-")[0] for one in first.ids) == ["came"] * 3 + ["late"] * 3
        assert sorted(one.partition("-")[0] for one in second.ids) == ["came", "late"]

    def test_places_that_are_left_go_to_tasks_that_are_due_soon(self):
        register("due", now=NOW - MINUTE, grace=timedelta(0))
        register("soon", now=NOW - MINUTE, grace=2 * MINUTE)
        register("sooner", now=NOW - MINUTE, grace=MINUTE + SECOND)
        register("young", now=NOW - 7 * SECOND, grace=8 * SECOND)
        register("far", now=NOW - MINUTE, grace=HOUR)
        assert claim(NOW, limit=2).ids == ["due", "sooner"]
        store.ask_now("due", NOW)
        release_all()
        assert sorted(claim(NOW).ids) == ["due", "soon", "sooner"]

    def test_no_call_is_made_for_what_is_only_due_soon(self):
        register("soon", now=NOW - MINUTE, grace=2 * MINUTE)
        assert claim(NOW).ids == []

    def test_what_was_asked_about_lately_takes_no_free_place(self):
        register("asked", now=NOW - MINUTE, grace=MINUTE - 14 * SECOND)
        look_up([], NOW - 14 * SECOND)
        register("due", now=NOW - MINUTE, grace=timedelta(0))
        assert claim(NOW).ids == ["due"]
        release_all()
        assert sorted(claim(NOW + SECOND).ids) == ["asked", "due"]

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
    def test_while_another_claims_all_of_one_service_there_is_work_in_the_next(self, ledger, other_service):
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
